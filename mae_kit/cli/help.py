"""The help of a command, out of signatures and docstrings."""

import inspect
import re
import textwrap
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from mae_kit.cli.schema import class_options, find_part, named_parameters, positional, record_type, type_name
from mae_kit.cli.words import SHORT
from mae_kit.errors import UserError

WIDTH, INDENT = 100, 28
RECIPE_OPTIONS = {
    "run": "Folder of the run; by default the next free runs/RECIPE[-N].",
    "resume": "Continue the run in this folder, with the recipe it has saved.",
    "config": "Another overlay: a recipe by name or path; may be given again.",
    "devices": "Processes on this machine: a number, or auto for one on each GPU.",
}
ALL_OPTIONS = {
    "import": "Import this module first, where your own objective is; may be given again.",
    "json": "Print the result as one JSON object on stdout, everything else on stderr.",
    "help": "Show this; --KEY.help explains the settings of one group, --KEY.help CLASS those of a class.",
}


def help_of(command: str, function: Callable[..., Any], recipes: str = "") -> str:
    """The whole help of a command."""
    usage = [f"usage: {_usage(command, function, recipes)}"]
    if recipes:
        usage.append(f"       mae-kit {command} --resume RUN")
    parts = ["\n".join(usage), _prose(function)]
    if recipes:
        parts.append(_section("common", _common(function)))
    parts.append(_section("arguments", _arguments(function, bool(recipes))))
    parts += [_record_section(name, kind) for name, kind in _records(function)]
    parts.append(_section("all commands", [(f"--{name}", text) for name, text in ALL_OPTIONS.items()]))
    return "\n\n".join(part for part in parts if part)


def help_of_part(function: Callable[..., Any], key: str, class_name: str = "") -> str:
    """The help of one group of settings, or of a class that a recipe may name.

    Raises:
        UserError: There is no such group or class.
    """
    kind = find_part(function, key, class_name)
    if kind is None:
        raise UserError(f"--{key}.help", f"{key} has no settings of its own", "see --help")
    title = f"{key}: {kind.__name__}. {_prose(kind)}"
    init = kind.__init__
    return "\n\n".join([textwrap.fill(title, WIDTH), _section("settings", list(_lines(init, kind, f"{key}.")))])


def _usage(command: str, function: Callable[..., Any], recipes: str) -> str:
    if recipes:
        return f"mae-kit {command} RECIPE [OVERLAY ...] [--KEY VALUE ...]"
    hints = get_type_hints(function)
    required = [one.default is one.empty for one in named_parameters(function).values()]
    places = [f"{name.upper()}{' ...' * (get_origin(hints[name]) is list)}" for name in positional(function)]
    places = places if any(required) else [f"[{place}]" for place in places]
    return " ".join(["mae-kit", command, *places, "[--OPTION VALUE ...]"])


def _common(function: Callable[..., Any]) -> list[tuple[str, str]]:
    texts = {}
    for name, kind in _records(function):
        texts |= {f"{name}.{one}": text for one, text in _docs(kind).items()}
    known = [
        (f"--{short.replace('_', '-')}", f"{texts[long]} ({long})") for short, long in SHORT.items() if long in texts
    ]
    return known + [(f"--{name}", text) for name, text in RECIPE_OPTIONS.items()]


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
        kind = hints.get(name, Any)
        option = f"--{prefix}{name}" if prefix else f"--{name.replace('_', '-')}"
        yield name.upper() if name in places else f"{option} {_kind(kind)}".rstrip(), docs.get(name, "") + _default(one)


def _kind(kind: Any) -> str:
    if classes := class_options(kind):
        return " or ".join(one.__name__ for one in classes)
    names = {None: "", bool: "", bool | None: "", Path: "PATH", str: "TEXT", int: "N", float: "X"}
    return names.get(kind, type_name(kind).replace("'", "").replace(" or ", "|"))


def _default(one: inspect.Parameter) -> str:
    if one.default is one.empty or one.default is None or one.default is False:
        return ""
    shown = str(one.default).replace("<factory>", "see the recipe")
    return f" (default: {'true' if one.default is True else shown})"


def _prose(documented: Any) -> str:
    text = re.split(r"\n\s*\w+:\n", inspect.getdoc(documented) or "")[0]
    return "\n\n".join(textwrap.fill(" ".join(part.split()), WIDTH) for part in text.strip().split("\n\n"))


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
