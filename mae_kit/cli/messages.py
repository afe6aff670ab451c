"""What a parser complains about, in one line that names the key and what to type instead."""

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from jsonargparse import SUPPRESS, ArgumentParser, Namespace

from mae_kit.errors import UserError

_KEY = re.compile(r'Parser key "([^"]+)"')
_CLASS = re.compile(r"given class_path '([\w.]+)'")
_UNKNOWN_OPTION = re.compile(r"Unrecognized arguments: (--[^ =]+)")
_UNKNOWN_WORDS = re.compile(r"Unrecognized arguments: (.+)")
_UNKNOWN_KEY = re.compile(r"(?:Group '([\w.]+)' does not accept option|Option) '([^']+)'(?: is not accepted)?$")
_MISSING = re.compile(r"Option '([\w.]+)' is required")
_WRONG_TYPE = re.compile(r"Expected an? (.+?)\. Got value: (.*)", re.DOTALL)
_NO_KEYS = re.compile(r'Parser key "([\w.]+)":\nUnable to load config \'(.*?)\'\n')
_WRONG_UNION = re.compile(r"Subtypes: \[(.+?)\]\n.*Given value: (.*)", re.DOTALL)


_EXAMPLES = {
    "list": "a list, as [.5,.5,.5]",
    "list[float]": "a list, as [.5,.5,.5]",
    "tuple": "two numbers, as [.2,1]",
    "dict": "keys, as {patch_size: 8}",
}


def plain_types(text: str) -> str:
    """Types as people write them: `int`, not `<class 'int'>`; and no base class among those to choose from."""
    text = re.sub(r"mae_kit\.objectives\.Objective,\s+", "", text)
    return re.sub(r"<class\s+'(?:[\w]+\.)*(\w+)'>", r"\1", text).replace("typing.", "").replace("NoneType", "null")


def nearest(word: str, known: Iterable[str]) -> str:
    """A question about the nearest known word, or an empty string.

    Of words with dots the last part is compared among those that share the rest; what lies in no group that is known,
    or is known by its last part elsewhere, is looked for as a whole.
    """
    known = list(known)
    group = _group(word)
    beside = {_last(one): one for one in known if _group(one) == group}
    near = [beside[last] for last in difflib.get_close_matches(_last(word), beside, 1)]
    if not near and not beside:
        near = difflib.get_close_matches(word, known, 1)
    near = near or [one for one in known if _last(one) == _last(word)]
    return f"did you mean {near[0]}?" if near else ""


def _group(word: str) -> str:
    return word.lstrip("-").rpartition(".")[0]


def _last(word: str) -> str:
    return word.lstrip("-").rpartition(".")[2]


def explain(message: str, parser: ArgumentParser) -> UserError:
    """A parser's message as the user's error."""
    if "NestedArg(" in message:
        message = _innermost(message)
    key = ".".join(_KEY.findall(message))
    if found := _UNKNOWN_OPTION.search(message):
        return UserError(
            "messages.explain", f"unknown option {found[1]}", nearest(found[1], _options(parser)) or _see(parser)
        )
    if found := _UNKNOWN_WORDS.search(message):
        return UserError("messages.explain", f"too many arguments, {found[1]}", _see(parser))
    if found := _MISSING.search(message):
        return _missing(f"{key}.{found[1]}" if key else found[1], parser)
    if found := _UNKNOWN_KEY.search(message):
        return _unknown_key(key, found[1], found[2], _CLASS.findall(message), parser)
    if found := _NO_KEYS.search(message):
        return _no_keys(found[1], found[2], parser)
    if found := _WRONG_UNION.search(message) or _WRONG_TYPE.search(message):
        first = _first_key(found[1])
        fix = f"did you mean --{key}.{first} {found[2].strip()}?" if first else f"give {_kinds(found[1])}"
        return UserError("messages.explain", f"{key} does not take {found[2].strip()!r}", fix)
    reason = plain_types(message.splitlines()[-1] if key else " ".join(message.split())).strip()
    return UserError("messages.explain", f"{key}: {reason}" if key else reason, _near_class(message) or _see(parser))


def _innermost(message: str) -> str:
    """Of a key of a part that may be null: what is said of the part, without what is said of null and of the parser."""
    head, _, reason = message.partition("\n  Given value type")[0].rpartition("\n    - ")
    return f"{head.partition(chr(10))[0]}\n{reason}"


def refuse_nulls(parser: ArgumentParser, values: Namespace) -> None:
    """What the parser lets pass: an empty key whose type takes no null, and a group of keys that is none.

    Raises:
        UserError: There is one; it names the key.
    """
    for action in parser._actions:
        key, kind = action.dest, getattr(action, "_typehint", None)
        value = values.get(key, SUPPRESS)
        if kind is not None:
            _refuse_null(key, kind, value)
        elif _is_group(key, parser) and not isinstance(value, Namespace):
            raise UserError("messages.nulls", f"{key} holds no keys", "give some, or leave it out")


def _refuse_null(key: str, kind: Any, value: Any) -> None:
    if value is None and type(None) not in get_args(kind):
        raise UserError("messages.null", f"{key} is empty", "give a value, or leave the key out")
    if isinstance(value, Namespace) and "class_path" in value:
        kinds = get_type_hints(_class(value.class_path).__init__)
        for name, argument in vars(value.get("init_args", Namespace())).items():
            _refuse_null(f"{key}.{name}", kinds[name], argument)


def _is_group(key: str, parser: ArgumentParser) -> bool:
    return any(action.dest.startswith(f"{key}.") for action in parser._actions)


def _kinds(types: str) -> str:
    """`int or null` for `<class 'NoneType'>, <class 'int'>`; `'a' or 'b'` for a Literal."""
    names = re.sub(r"Literal\[(.+?)\]", r"\1", plain_types(types)).split(", ")
    return " or ".join(_EXAMPLES.get(name, name) for name in sorted(names, key="null".__eq__))


def _first_key(types: str) -> str:
    """Of a part of a recipe, where one is among the types."""
    classes = [_class(path) for path in re.findall(r"<class '(\w+(?:\.\w+)+)'>", types)]
    return next((fields(kind)[0].name for kind in classes if is_dataclass(kind)), "")


def _no_keys(key: str, value: str, parser: ArgumentParser) -> UserError:
    own = [option for option in _options(parser) if option.startswith(f"--{key}.")]
    return UserError("messages.no_keys", f"{key} is not {value!r}, it holds keys", f"give one of {', '.join(own)}")


def _near_class(message: str) -> str:
    found = re.search(r"module '([\w.]+)' has no attribute '(\w+)'", message)
    if not found or found[1] not in sys.modules:
        return ""
    classes = [f"{found[1]}.{name}" for name, kind in vars(sys.modules[found[1]]).items() if isinstance(kind, type)]
    return nearest(f"{found[1]}.{found[2]}", classes)


def _missing(key: str, parser: ArgumentParser) -> UserError:
    if "." in key:  # of a class that the recipe names
        return UserError("messages.missing", f"{key} is missing", f"add --{key}, see --{_group(key)}.help CLASS")
    if f"--{key}" in parser._option_string_actions:
        return UserError(
            "messages.missing",
            f"{key} is missing",
            f"add --{key} or --config RECIPE" if _takes_recipes(parser) else f"add --{key}",
        )
    return UserError("messages.missing", f"{key.upper()} is missing", _see(parser))


def _unknown_key(key: str, group: str | None, name: str, classes: list[str], parser: ArgumentParser) -> UserError:
    if classes:
        known = _parameters(classes[-1])
    else:
        key = group or ""
        known = [option.removeprefix(f"--{key}.").removeprefix("--") for option in _options(parser) if key in option]
    dot = f"{key}." if key else ""
    near = nearest(dot + name, [dot + word for word in known])
    return UserError("messages.unknown_key", f"unknown key {dot}{name}", near or f"it may be one of {', '.join(known)}")


def _parameters(class_path: str) -> list[str]:
    return list(inspect.signature(_class(class_path).__init__).parameters)[1:]


def _class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _options(parser: ArgumentParser) -> list[str]:
    return [option for option in parser._option_string_actions if not option.endswith(("+", ".help"))]


def _takes_recipes(parser: ArgumentParser) -> bool:
    return "--config" in parser._option_string_actions


def _see(parser: ArgumentParser) -> str:
    return f"see `{parser.prog} --help`"
