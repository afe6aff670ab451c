"""The help of a command, out of signatures and docstrings."""

import inspect
import re
import shutil
import textwrap
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from mae_kit.cli.parser import writes_run
from mae_kit.cli.schema import class_options, named_parameters, parts, positional, record_type, type_name
from mae_kit.cli.words import SHORT

WIDTH = max(60, min(100, shutil.get_terminal_size((100, 24)).columns - 1))
INDENT = 28
RECIPE = "A recipe that `mae-kit recipes` lists, or your own YAML file. Overlays such as on/gpu override parts of it."
RECIPE_OPTIONS = {"config RECIPE": "The recipe or an overlay, as an option; can be repeated."}
RUN_OPTIONS = {
    "run RUN": "Folder of the run; by default the next free runs/RECIPE[-N].",
    "resume RUN": "Resume the run in this folder, with the recipe saved there; auto = start or resume that of --run.",
    "devices N": "Number of processes on this machine; auto = one per GPU, or per CPU core.",
}
ALL_OPTIONS = {
    "import MODULE": "Import your own module first, for example one with an objective; can be repeated.",
    "json": "Print the result as one JSON object on stdout, and everything else on stderr.",
    "help": "Print this help.",
}
GROUPS = " --KEY.help explains one group of settings, --KEY.help CLASS the settings of one class."


def help_of(command: str, function: Callable[..., Any], recipes: str = "") -> str:
    """The whole help of a command."""
    usage = [f"usage: {_usage(command, function, recipes)}"]
    trains = bool(recipes) and writes_run(function)
    if trains:
        usage.append(f"       mae-kit {command} --resume RUN")
    parts = ["\n".join(usage), _prose(function)]
    if recipes:
        own = RUN_OPTIONS | RECIPE_OPTIONS if trains else RECIPE_OPTIONS
        parts.append(_section("common", [("RECIPE", RECIPE), *_short(function), *_written(own)]))
    parts.append(_section("arguments", _arguments(function, bool(recipes))))
    parts += [_record_section(name, kind) for name, kind in _records(function)]
    everywhere = ALL_OPTIONS | {"help": ALL_OPTIONS["help"] + GROUPS * bool(recipes)}
    parts.append(_section("all commands", _written(everywhere)))
    return "\n\n".join(part for part in parts if part)


def help_of_part(function: Callable[..., Any], key: str, class_name: str = "") -> str:
    """The help of one group of settings, or of a class that a recipe may name; a list where there are several.

    Raises:
        UserError: There is no such group or class.
    """
    kinds = parts(function, key, class_name)
    if len(kinds) > 1:
        listed = [(kind.__name__, _prose(kind).partition("\n\n")[0]) for kind in kinds]
        return _section(f"{key}, one of these classes; --{key}.help CLASS lists the settings of one", listed)
    title = f"{key}: {kinds[0].__name__}. {_prose(kinds[0])}"
    init = kinds[0].__init__
    return "\n\n".join([_filled(title), _section("settings", list(_lines(init, kinds[0], f"{key}.")))])


def _usage(command: str, function: Callable[..., Any], recipes: str) -> str:
    if recipes:
        return f"mae-kit {command} RECIPE [OVERLAY ...] [--KEY VALUE ...]"
    hints = get_type_hints(function)
    required = [one.default is one.empty for one in named_parameters(function).values()]
    places = [f"{name.upper()}{' ...' * (get_origin(hints[name]) is list)}" for name in positional(function)]
    places = places if any(required) else [f"[{place}]" for place in places]
    return " ".join(["mae-kit", command, *places, "[--OPTION VALUE ...]"])


def _written(options: dict[str, str]) -> list[tuple[str, str]]:
    return [(f"--{name}", text) for name, text in options.items()]


def _short(function: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    """The short names, with the settings that they stand for."""
    records = dict(_records(function))
    for short, long in SHORT.items():
        group, _, name = long.partition(".")
        if group in records and name in (known := named_parameters(records[group].__init__)):
            kind = get_type_hints(records[group])[name]
            yield _option(short, kind, known[name].default), f"{_docs(records[group])[name]} ({long})"


def _option(name: str, kind: Any, default: Any) -> str:
    """An option and its value; of a switch that can be turned off, both spellings."""
    if "." in name:  # as recipes spell it
        return f"--{name} {'true|false' if kind is bool else _kind(kind)}"
    if kind == bool | None or default is True:
        return f"--[no-]{name.replace('_', '-')}"
    return f"--{name.replace('_', '-')} {_kind(kind)}".rstrip()


def _arguments(function: Callable[..., Any], recipes: bool) -> list[tuple[str, str]]:
    records = dict(_records(function))
    skipped = {*records, "resume", "run"} if recipes else set(records)
    places = () if recipes else tuple(positional(function))
    return list(_lines(function, function, "", places, skipped))


def _records(function: Callable[..., Any]) -> Iterator[tuple[str, type]]:
    """The parameters that are groups of settings."""
    for name, kind in get_type_hints(function).items():
        if name != "return" and (record := record_type(kind)):
            yield name, record


def _record_section(name: str, kind: type) -> str:
    return _section(f"{name}: {_prose(kind)}", list(_lines(kind.__init__, kind, f"{name}.")))


def _lines(
    function: Callable[..., Any],
    documented: Any,
    prefix: str,
    places: Container[str] = (),
    skipped: Container[str] = (),
) -> Iterator[tuple[str, str]]:
    """Of each parameter how it is written, and what it is."""
    hints, docs = get_type_hints(function), _docs(documented)
    for name, one in named_parameters(function).items():
        if name in skipped:
            continue
        option = _option(f"{prefix}{name}", hints.get(name, Any), one.default)
        yield name.upper() if name in places else option, docs.get(name, "") + _default(one, prefix)


def _kind(kind: Any) -> str:
    """What stands behind an option; nothing behind a switch."""
    if classes := class_options(kind):
        return " or ".join(one.__name__ for one in classes)
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        several = any(one is Path or get_origin(one) is list for one in members)
        kinds = [one for one in members if one is not type(None) and not (one is str and several)]
        return "|".join(map(_kind, kinds))
    if origin is tuple and ... not in members:
        return ",".join(map(_kind, members))
    names = {None: "", bool: "", Path: "PATH", str: "TEXT", int: "N", float: "X", Any: "VALUE"}
    return names.get(kind, type_name(kind).replace("'", "").replace(" or ", "|"))


def _default(one: inspect.Parameter, prefix: str) -> str:
    """The default in words; of a switch its name says it."""
    value = one.default
    if value is one.empty or value is None or str(value) == "<factory>" or (isinstance(value, bool) and not prefix):
        return ""
    shown = ",".join(map(_shown, value)) or "none" if isinstance(value, tuple) else _shown(value)
    return f" (default: {shown})"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _prose(documented: Any) -> str:
    return _filled(re.split(r"\n\s*\w+:\n", inspect.getdoc(documented) or "")[0].strip())


def _filled(text: str) -> str:
    return "\n\n".join(textwrap.fill(" ".join(part.split()), WIDTH) for part in text.split("\n\n"))


def _docs(documented: Any) -> dict[str, str]:
    """The descriptions of arguments or attributes in a docstring of Google's style."""
    found = re.search(r"\n(?:Args|Attributes):\n(.*?)(?:\n\n\w+:\n|\Z)", inspect.getdoc(documented) or "", re.DOTALL)
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w|\Z)", found[1] if found else "", re.DOTALL | re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _section(title: str, lines: list[tuple[str, str]]) -> str:
    if not lines:
        return ""
    return "\n".join([f"{title[0].upper()}{title[1:]}".rstrip(".") + ":", *(_entry(*line) for line in lines)])


def _entry(head: str, text: str) -> str:
    indent = " " * INDENT
    body = textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
    start = f"  {head}"
    return start + body[len(start) :] if len(start) < INDENT - 1 else f"{start}\n{body}".rstrip()
