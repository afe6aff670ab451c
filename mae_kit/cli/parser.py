"""A command line becomes the arguments of its function."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from mae_kit.classes.own_code import allow
from mae_kit.cli.schema import arguments, check, dotted_keys, is_open, kind_of, named_parameters, nearest, positional
from mae_kit.cli.settings import merged, nested, next_run
from mae_kit.cli.words import SHORT, Words, read_words
from mae_kit.errors import UserError
from mae_kit.files.run_folder import RunFolder

AUTO = "auto"  # in place of the folder of a run: begin it or continue it
OUTSIDE = ("config", "resume", "import")  # options that are not arguments of the function


def parse(function: Callable[..., Any], program: str, words: Sequence[str], recipes: str = "") -> dict[str, Any]:
    """Read the words behind a command as the arguments of its function.

    Args:
        function: Its typed signature is the schema.
        program: The words before these, for messages.
        words: The command line.
        recipes: The folder of recipes the command takes, as its first words; empty for one that takes none, whose
            `positional` parameters are words.

    Raises:
        UserError: Names the key at fault and the nearest valid one.
    """
    return arguments(function, values(function, program, words, recipes))


def values(function: Callable[..., Any], program: str, words: Sequence[str], recipes: str = "") -> dict[str, Any]:
    """Read the words behind a command as plain values by name, as `parse` does, without making objects of them.

    An outline of the function suffices, so that mistakes are refused before anything heavy is imported.
    """
    read = read_words(words, lambda name: _kind(function, name, recipes))
    modules = read.options.pop("import", [])
    for name in read.options:
        _check_known(function, program, name, recipes)
    if recipes:
        resume = read.options.pop("resume", None)
        files = [*_recipes(read, resume), *read.options.pop("config", [])]
        given = settings_of(function, recipes, files, resume, read.options)
    else:
        given = _placed(function, program, read)
    check(function, given)
    for module in modules:
        allow(module)
    return given


def settings_of(
    function: Callable[..., Any], kind: str, recipes: Sequence[str], resume: str | Path | None, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of a command that takes recipes, for the command line and for Python.

    Args:
        function: The command, or its outline.
        kind: Its folder of recipes.
        recipes: A recipe and its overlays, by name or path.
        resume: The folder of a run to continue; "auto" for `run` once it has started.
        given: Values by short name or dotted key.
    """
    if resume == AUTO:
        resume = _begun(given)
        recipes = [] if resume else recipes  # the run has its own
    settings = merged(kind, recipes, Path(resume) if resume else None, given)
    names = named_parameters(function)
    if writes_run(function) and "run" not in settings and recipes:
        settings["run"] = next_run(Path(recipes[0]).stem)
    if "resume" in names:
        settings["resume"] = resume is not None
    return settings


def _begun(given: Mapping[str, Any]) -> str | None:
    """The run that `--resume auto` continues; None where the same command begins it.

    Raises:
        UserError: The run is not named.
    """
    if not (run := given.get("run")):
        raise UserError("run.of_resume", "--resume auto needs the folder of the run", "give --run RUN")
    return str(run) if RunFolder(Path(run)).config.exists() else None


def _kind(function: Callable[..., Any], name: str, recipes: str) -> Any:
    kind = str if name in OUTSIDE else kind_of(function, SHORT.get(name, name) if recipes else name)
    return bool if kind == bool | None else kind


def _check_known(function: Callable[..., Any], program: str, name: str, recipes: str) -> None:
    """Refuse a misspelled option before anything else; those of a class are checked once it is known."""
    known = options(function, recipes)
    opened = any(name.startswith(f"{key}.") and is_open(kind_of(function, key)) for key in known)
    if name not in known and not opened:
        near = nearest(name, known).replace("mean ", "mean --")
        raise UserError(f"--{name}", f"unknown option --{name}", near or f"see `{program} --help`")


def options(function: Callable[..., Any], recipes: str) -> list[str]:
    """The options of a command: short names first, then its settings."""
    if not recipes:
        return dotted_keys(function)
    return ["config", *(["resume"] if writes_run(function) else []), *SHORT, *dotted_keys(function)]


def writes_run(function: Callable[..., Any]) -> bool:
    """Whether a command trains into the folder of a run, which can be resumed and shared by several processes."""
    return "run" in named_parameters(function)


def _recipes(read: Words, resume: str | None) -> list[str]:
    """The recipe and its overlays. Further words are what the shell made of a pattern without quotes."""
    for word in read.places[1 if not resume else 0 :]:
        if Path(word).suffix not in ("", ".yaml", ".yml") and Path(word).exists():
            fix = "if the shell expanded a pattern, quote it: --data 'shards/train-*.tar'"
            raise UserError("recipe.name.word", f"{word} is not a recipe", fix)
    return read.places


def _placed(function: Callable[..., Any], program: str, read: Words) -> dict[str, Any]:
    """Positional arguments by name; a list at the end takes all further words."""
    hints, words = get_type_hints(function), list(read.places)
    values: dict[str, Any] = {}
    for name in positional(function):
        if not words or name in read.options:
            continue
        if get_origin(hints[name]) is list:
            values[name], words = words, []
        else:
            values[name] = words.pop(0)
    if words:
        fix = "if the shell expanded a pattern, quote it" if Path(words[0]).exists() else f"see `{program} --help`"
        raise UserError("arguments", f"unexpected argument {words[0]}", fix)
    return values | nested(read.options)
