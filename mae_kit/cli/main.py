"""The entry point: one command, one function. Only the standard library is imported before a command is chosen."""

import contextlib
import difflib
import errno
import inspect
import io
import json
import keyword
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from mae_kit.errors import OutputLost, UserError
from mae_kit.inert import inert
from mae_kit.version import __version__


class Command(NamedTuple):
    """A command; the function of the same name in `mae_kit` does the work.

    Its signature is the schema of the command line, its docstring the help.

    Attributes:
        help: One line for the list of commands.
        group: The heading it is listed under.
        recipes: The folder of the recipes it takes as its first words; empty for one that takes none.
        resumes: Whether the same command, given again, continues what was interrupted.
    """

    help: str
    group: str
    recipes: str = ""
    resumes: bool = False


COMMANDS = {
    "shard": Command("pack a folder of images into shards", "Data", resumes=True),
    "index": Command("index shards and report damaged ones", "Data", resumes=True),
    "dedup": Command("find near-duplicates, within a dataset or against a test set", "Data"),
    "pretrain": Command("pretrain an encoder on images without labels", "Train", "pretrain"),
    "tokenizer": Command("train the tokenizer whose codes BEiT predicts", "Train", "tokenizer"),
    "finetune": Command("train a classifier, segmenter, detector or regressor on labels", "Train", "downstream"),
    "plan": Command("estimate the cost of pretraining, here or on GPUs, and what to expect", "Train", "pretrain"),
    "reconstruct": Command("plot what the model predicts for your images", "Inspect"),
    "inspect": Command("plot a pretrained model's attention, features, losses and more", "Inspect"),
    "predict": Command("apply a fine-tuned model to your images", "Inspect"),
    "bench": Command("measure an encoder's speed and memory at several image sizes", "Inspect"),
    "report": Command("summarize a run in an HTML report", "Inspect"),
    "evaluate": Command("score an encoder, frozen or fine-tuned", "Evaluate", resumes=True),
    "embed": Command("write the features of your images to a file", "Evaluate", resumes=True),
    "compare": Command("train and score several objectives with the same data and budget", "Evaluate", resumes=True),
    "import": Command("convert weights from another program", "Exchange"),
    "export": Command("convert weights for another program", "Exchange"),
    "recipes": Command("list the recipes, or print one", "Other"),
    "doctor": Command("report on this machine; test that a killed run resumes", "Other"),
    "demo": Command("shard, pretrain, plot and fine-tune in a few minutes", "Other", resumes=True),
}

# What the owner of the disk can mend; every other OSError is ours.
_USER_ERRNO = {
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "free some space or choose another folder",
    errno.EFBIG: "choose a folder on a disk that allows files of this size",
    errno.EIO: "its disk is failing: choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EROFS: "choose a folder that can be written",
    errno.EEXIST: "choose another path",
    errno.ENOTDIR: "choose another path",
    errno.EACCES: "change its permissions or choose another folder",
    errno.EPERM: "change its permissions or choose another folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "this machine has too many open files: close other programs",
    errno.ESTALE: "it has changed on its file server: repeat the command",
    errno.ETIMEDOUT: "its file server does not answer: repeat the command",
    errno.EBUSY: "another program is using it: repeat the command",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: The words after `mae-kit`; by default those of this process.

    Returns:
        The exit code: 0, 1 for an internal error, a standard output that is full, or a step that failed (the result
        counts them as `failed`), 2 for a mistake of the user, 130 when interrupted. A function that stops with a code
        of its own (`SystemExit`, 143 after a SIGTERM) keeps it.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names are any bytes
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _answer(words) if not words or words[0] not in COMMANDS else _run(words[0], words[1:])
        _flush_output()
        return code
    except KeyboardInterrupt:
        return _interrupted(words, 130)
    except SystemExit as stop:
        if stop.code in (130, 143) and _resumes(words):  # others have reported it themselves
            return _interrupted(words, int(stop.code))
        raise
    except Exception as error:
        return _complain(error)


def _answer(words: list[str]) -> int:
    """What needs no command: help, the version, completion."""
    first, second = [*words, "", ""][:2]
    if first in ("-V", "--version"):
        return _print(f"mae-kit {__version__}")
    if first == "--completion":
        from mae_kit.cli.completion import script

        return _print(script(second))
    if first == "help" and second in COMMANDS:
        return _run(second, ["--help"])
    if first in ("", "-h", "--help", "help"):
        return _print(overview())
    near = difflib.get_close_matches(first, COMMANDS, 1)
    fix = f"did you mean `mae-kit {near[0]}`?" if near else f"choose one of {', '.join(COMMANDS)}"
    raise UserError("command", f"no such command {first!r}", fix)


def overview() -> str:
    """The list of commands, by group."""
    width = max(map(len, COMMANDS))
    lines = ["usage: mae-kit COMMAND ...", ""]
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        listed = [f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items() if command.group == group]
        lines += [f"{group}:", *listed, ""]
    lines += [
        "`mae-kit COMMAND --help` lists the arguments of a command, `mae-kit recipes` the recipes.",
        "`--json` prints the result of any command as one JSON object, `--version` the version,",
        "`--completion bash|zsh|fish` a script that completes commands, recipes and options in that shell.",
    ]
    return "\n".join(lines)


def load(command: str) -> Callable[..., Any]:
    """The function that does a command's work."""
    from mae_kit.cli.outline import PACKAGE

    return inspect.unwrap(getattr(PACKAGE, function_name(command)))


def outlined(command: str) -> Callable[..., Any]:
    """The function of a command as its source states it, without the imports that its work needs."""
    from mae_kit.cli.outline import PACKAGE, outline

    name = function_name(command)
    return outline(name) if name in PACKAGE.MODULES else load(command)


def function_name(command: str) -> str:
    """A command as a function of `mae_kit`."""
    return f"{command}_" if keyword.iskeyword(command) else command


def read(command: str, words: Sequence[str]) -> dict[str, Any]:
    """The arguments of a command's function that its words stand for.

    Raises:
        UserError: A word is not understood.
    """
    from mae_kit.cli.schema import arguments

    return arguments(load(command), _values(command, words))


def _values(command: str, words: Sequence[str]) -> dict[str, Any]:
    """The same as plain values, for which nothing heavy is imported."""
    from mae_kit.cli.parser import values

    return values(outlined(command), f"mae-kit {command}", words, COMMANDS[command].recipes)


def _check_places(given: dict[str, Any]) -> None:
    """Refuse data that are not there; a number of images, which `plan` takes, is no place."""
    from mae_kit.data.index.patterns import must_be_there

    data, val = given.get("data"), given.get("val")
    named = (data.get("path"), data.get("val")) if isinstance(data, dict) else (data, val)
    for place in named:
        if isinstance(place, str) and not place.isdecimal():
            must_be_there(place)


def _run(name: str, words: list[str]) -> int:
    from mae_kit.cli.launch import device_count, follow_parent, is_launched, launch
    from mae_kit.cli.parser import writes_run
    from mae_kit.cli.schema import arguments
    from mae_kit.cli.words import take

    follow_parent()
    if asked := next(filter(_asks_for_help, words), None):
        return _help(name, asked, words)
    trains = COMMANDS[name].recipes and writes_run(outlined(name))
    devices, words = take(words, "devices") if trains else ("", words)
    if devices and not is_launched() and (count := device_count(devices)) > 1:
        return launch([name, *_with_run(name, words)], count)
    as_json = "--json" in words
    words = [word for word in words if word != "--json"]
    from mae_kit.console import is_main_process, messages

    with messages():
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            given = _values(name, words)  # this and the places first: mistakes are answered without importing torch
            _check_places(given)
            function = load(name)
            result = function(**_with_threads(function, arguments(function, given)))
            if isinstance(result, Iterator):  # for Python, which takes them one by one
                raise UserError("out.missing", f"{name} has no file for its results", "add --out FILE")
        if is_main_process():
            _report(result, as_json)
    return int(isinstance(result, dict) and bool(result.get("failed")))


def _with_threads(function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Choose the threads of a new training, where its user does not; from Python they are the caller's."""
    if arguments.get("resume") or "machine" not in inspect.signature(function).parameters:
        return arguments
    from mae_kit.training.config import Machine
    from mae_kit.training.threads import with_free_threads

    return arguments | {"machine": with_free_threads(arguments.get("machine", Machine()))}


def _report(result: Any, as_json: bool) -> None:
    """Print a result as JSON, or, below what the command has printed, the command that comes next."""
    if as_json:
        _print(json.dumps(result))
    elif isinstance(result, dict) and "next" in result:
        _print(f"next: {result['next']}")


def _asks_for_help(word: str) -> bool:
    return word in ("-h", "--help") or (word.startswith("--") and word.partition("=")[0].endswith(".help"))


def _with_run(name: str, words: list[str]) -> list[str]:
    """Several processes need one folder, chosen before they start."""
    if any(word.partition("=")[0] in ("--run", "--resume") for word in words):
        return words
    return [*words, "--run", _values(name, [word for word in words if word != "--json"])["run"]]


def _help(name: str, asked: str, words: list[str]) -> int:
    from mae_kit.cli.help import help_of, help_of_part
    from mae_kit.cli.outline import outline_classes

    function = outlined(name)
    if asked in ("-h", "--help"):
        return _print(help_of(name, function, COMMANDS[name].recipes))
    key, _, class_name = asked[2:].partition("=")
    behind = words[words.index(asked) + 1 :]
    class_name = class_name or next((word for word in behind[:1] if not word.startswith("--")), "")
    if "." in class_name:  # anybody's, which only an import knows
        function = load(name)
    else:
        outline_classes()
    return _print(help_of_part(function, key.removesuffix(".help").replace("-", "_"), class_name))


def _print(text: str) -> int:
    """Print what was asked for; a reader that stops early, as `head`, is no error."""
    try:
        print(inert(text))
    except BrokenPipeError:
        _discard_output()
    except OSError as error:
        raise OutputLost(*error.args) from error
    return 0


def _interrupted(words: list[str], code: int) -> int:
    hint = "; the same command again continues where it stopped" if _resumes(words) else ""
    print(f"mae-kit: interrupted{hint}", file=sys.stderr)
    return code


def _resumes(words: list[str]) -> bool:
    return bool(words) and words[0] in COMMANDS and COMMANDS[words[0]].resumes


def _flush_output() -> None:
    """Write what is still in the buffer."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
    except OSError as error:
        raise OutputLost(*error.args) from error


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(error: Exception) -> int:
    if isinstance(error, UserError):
        print(f"mae-kit: error: {inert(str(error))}", file=sys.stderr)
        return 2
    if isinstance(error, OutputLost):
        _discard_output()
        print(f"mae-kit: error: standard output: {error.strerror}: what was printed is incomplete", file=sys.stderr)
        return 1
    if isinstance(error, OSError) and error.errno in _USER_ERRNO:
        where = f"{error.filename}: " if error.filename else ""
        print(f"mae-kit: error: {inert(where)}{error.strerror}: {_USER_ERRNO[error.errno]}", file=sys.stderr)
        return 2
    print(inert("".join(traceback.format_exception(error))), file=sys.stderr)
    print(f"mae-kit {__version__}: internal error; please report it with the traceback above", file=sys.stderr)
    return 1
