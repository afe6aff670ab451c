"""Plain values become the typed arguments of a function: what its signature names is made, all else is refused."""

import difflib
import inspect
import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, SupportsIndex, Union, get_args, get_origin, get_type_hints

import yaml

from mae_kit.classes.own_code import find_class
from mae_kit.cli.words import short_of
from mae_kit.errors import UserError
from mae_kit.files.recipe_file import parse_yaml

_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "text", Path: "a path", type(None): "null"}
_SCALARS = tuple(_NAMES)


def arguments(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Make the arguments of a function, with its defaults.

    Args:
        function: Its type hints are the schema: scalars, Literal, list, tuple, dict, unions, dataclasses and classes.
        values: Plain values by name, as YAML has them; a string from the command line is read as YAML where the type
            is not a string. A dataclass is a mapping of its fields, another class `{class_path: ..., init_args: ...}`.
            Objects of these types are taken as they are.

    Raises:
        UserError: A key is unknown or missing, or has a value of another type.
    """
    hints = get_type_hints(function)
    _check_names(function, values, "")
    ordered = sorted(values, key=lambda name: bool(class_options(hints[name])))  # what is cheap to refuse comes first
    made: dict[str, Any] = {}
    for name in ordered:
        if class_options(hints[name]) and "seed" in hints:
            _seed(made.get("seed", inspect.signature(function).parameters["seed"].default))
        made[name] = convert(hints[name], values[name], name)
    return {name: made.get(name, one.default) for name, one in inspect.signature(function).parameters.items()}


def check(function: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Refuse what `arguments` would refuse by names and plain types alone; an outline of the function suffices.

    Raises:
        UserError: As `arguments`.
    """
    hints = get_type_hints(function)
    _check_names(function, values, "")
    for name, value in values.items():
        if not class_options(hints[name]):
            convert(hints[name], value, name)


def _seed(seed: int) -> None:
    """Weights are drawn as the classes are built."""
    import torch

    if not -(2**63) <= seed < 2**63:
        raise UserError("seed", f"seed is {seed}", "give a 64-bit integer")
    torch.manual_seed(seed)


def convert(kind: Any, value: Any, key: str) -> Any:
    """A value of a type.

    Raises:
        UserError: It is none; `key` names it.
    """
    origin, members = get_origin(kind), get_args(kind)
    if kind is Any:
        return _plain(_read(value), key)
    if origin in (Union, types.UnionType):
        return _one_of(members, value, key)
    if origin is Literal:
        return _choice(members, value, kind, key)
    if origin in (list, tuple):
        return _sequence(origin, members, value, kind, key)
    if origin is dict:
        return _mapping(members[1], value, kind, key)
    if kind in _SCALARS:
        return _scalar(kind, value, key)
    if is_dataclass(kind):
        return _record(kind, value, key)
    return _object((kind,), value, key)


def _one_of(members: tuple[Any, ...], value: Any, key: str) -> Any:
    classes = tuple(member for member in members if _is_class(member))
    records = [member for member in members if is_dataclass(member)]
    if Path in members and value == "":  # an unset variable of a shell
        raise _mismatch(key, value, members)
    if type(None) in members and _read(value) is None:
        return None
    if Path in members and isinstance(value, Path):
        return value
    if records:
        return _record(records[0], value, key)
    if classes and (isinstance(value, (Mapping, *classes)) or not {str, Path} & {*members}):
        return _object(classes, value, key)
    # A string is a number or null if it reads as one, else a string.
    for member in sorted(members, key=lambda member: member in (str, Path)):
        try:
            return convert(member, value, key)
        except UserError:
            continue
    raise _mismatch(key, value, members)


def _choice(members: tuple[Any, ...], value: Any, kind: Any, key: str) -> Any:
    for member in members:
        if str(member) == str(value):
            return member
    raise _mismatch(key, value, (kind,))


def _sequence(origin: type, members: tuple[Any, ...], value: Any, kind: Any, key: str) -> Any:
    """A list, of the command line with commas between: `a,b` or `[a,b]`; a single value is a list of one."""
    content = _read(value)
    if isinstance(content, str | Path):
        named = {str, Path} & {*members, *get_args(members[0])}  # these may have commas in them
        content = [value] if named else str(content).split(",")
    elif not isinstance(content, list | tuple):
        content = [content]
    kinds = members if origin is tuple and ... not in members else [members[0]] * len(content)
    if len(kinds) != len(content):
        raise _mismatch(key, value, (kind,))
    return origin(convert(one, each, key) for one, each in zip(kinds, content, strict=True))


def _mapping(member: Any, value: Any, kind: Any, key: str) -> dict[str, Any]:
    content = _read(value)
    if not isinstance(content, Mapping):
        raise _mismatch(key, value, (kind,))
    return {str(name): convert(member, each, f"{key}.{name}") for name, each in content.items()}


def _scalar(kind: Any, value: Any, key: str) -> Any:
    if kind in (str, Path):
        if isinstance(value, str | Path) and _is_name(value) and (kind is str or value):
            return kind(value)
        raise _mismatch(key, value, (kind,))
    content = _read(value)
    if kind is float and content is not None and not isinstance(content, bool):
        try:
            return float(content)
        except (TypeError, ValueError, OverflowError):
            raise _mismatch(key, value, (kind,)) from None
    if kind is int and isinstance(content, SupportsIndex) and not isinstance(content, bool):
        return int(content)
    if type(content) is not kind:
        raise _mismatch(key, value, (kind,))
    return content


def _is_name(text: str | Path) -> bool:
    """Whether a file may be called so: without zero bytes, and without halves of characters."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _read(value: Any) -> Any:
    """A word of the command line as YAML reads it; other values are what they are."""
    if not isinstance(value, str):
        return value
    try:
        return parse_yaml(value)
    except (ValueError, yaml.YAMLError):
        return value


def _plain(value: Any, key: str) -> Any:
    """A value of a free-form mapping: scalars and lists or mappings of these, never an object.

    Raises:
        UserError: It asks for an object.
    """
    if isinstance(value, Mapping):
        if "class_path" in value:
            raise UserError("config.class_path.value", f"{key} names a class", "use plain values here")
        return {str(name): _plain(each, f"{key}.{name}") for name, each in value.items()}
    return [_plain(each, key) for each in value] if isinstance(value, list | tuple) else value


def _record(kind: Any, value: Any, key: str) -> Any:
    if isinstance(value, kind):
        return value
    content = _read(value)
    if not isinstance(content, Mapping):
        options = ", ".join(f"--{key}.{one.name}" for one in fields(kind))
        raise UserError(key, f"{key} is a group of settings, not {value!r}", f"give {options}")
    return kind(**_fields(kind, content, key))


def _object(kinds: tuple[type, ...], value: Any, key: str) -> Any:
    """An object of a class that a recipe names; the class is refused before anything foreign is imported."""
    if isinstance(value, kinds):
        return value
    content = {"class_path": value} if isinstance(value, str) else value
    if not isinstance(content, Mapping) or content.keys() - {"class_path", "init_args"}:
        raise UserError(key, f"{key} is not {value!r}", "give class_path and init_args")
    kind = chosen_class(kinds, content, key)
    given = content.get("init_args") or {}
    if not isinstance(given, Mapping):
        raise UserError(key, f"{key} is not {given!r}", "init_args holds `key: value` lines")
    return _construct(kind, _fields(kind, given, key))


def chosen_class(kinds: tuple[type, ...], content: Mapping[str, Any], key: str) -> type:
    """The class that `class_path` names; without one, that of the type.

    Raises:
        UserError: It may not be imported, or is of another kind.
    """
    path = content.get("class_path", f"{kinds[0].__module__}.{kinds[0].__qualname__}")
    if not isinstance(path, str):
        raise UserError("config.class_path.name", f"class_path of {key} is {path!r}", "give MODULE.CLASS")
    kind = find_class(path)
    if not issubclass(kind, kinds) or inspect.isabstract(kind):
        names = " or ".join(one.__name__ for one in kinds)
        raise UserError(key, f"{key} cannot be a {path}", f"give a {names}")
    return kind


def _construct(kind: type, given: dict[str, Any]) -> Any:
    try:
        return kind(**given)
    except (UserError, OSError):
        raise
    except Exception as error:  # whatever torch and timm trip over in odd numbers
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        what = f"no {kind.__name__} can be built ({reason})"
        raise UserError("objective.sizes", what, "check the sizes in the recipe") from error


def _fields(kind: Any, values: Mapping[str, Any], key: str) -> dict[str, Any]:
    _check_names(kind.__init__, values, f"{key}.")
    hints = get_type_hints(kind.__init__)
    return {name: convert(hints.get(name, Any), value, f"{key}.{name}") for name, value in values.items()}


def _check_names(function: Callable[..., Any], values: Mapping[str, Any], prefix: str) -> None:
    own = named_parameters(function)
    catches_all = any(one.kind is one.VAR_KEYWORD for one in inspect.signature(function).parameters.values())
    for name in values:
        if name not in own and not catches_all:
            key = f"{prefix}{name}"
            fix = nearest(key, dotted_keys(function, prefix)) or f"choose one of {', '.join(own)}"
            raise UserError(key, f"unknown setting {key}", fix)
    for name, one in own.items():
        if one.default is one.empty and values.get(name, one.empty) is one.empty:
            whole = not prefix and name in ("objective", "model", "optimization")  # nobody types these
            fix = "name a recipe; `mae-kit recipes` lists them" if whole else f"add --{short_of(prefix + name)}"
            raise UserError(f"{prefix}{name}", f"{prefix}{name} is missing", fix)


def named_parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Parameters that can be given by name, without self."""
    parameters = inspect.signature(function).parameters
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: one for name, one in parameters.items() if one.kind not in variadic and name != "self"}


def positional(function: Callable[..., Any]) -> list[str]:
    """Parameters that are given as words, without their name: those without default, else the first.

    None that Python takes by name alone.
    """
    words = {name: one for name, one in named_parameters(function).items() if one.kind is not one.KEYWORD_ONLY}
    return [name for name, one in words.items() if one.default is one.empty] or [*words][:1]


def dotted_keys(function: Callable[..., Any], prefix: str = "") -> list[str]:
    """All settings of a function, those of its dataclasses behind a dot."""
    keys = []
    for name, kind in get_type_hints(function).items():
        if name in named_parameters(function):
            keys += [f"{prefix}{name}", *(f"{prefix}{name}.{one.name}" for one in _record_fields(kind))]
    return keys


def _record_fields(kind: Any) -> list[Any]:
    record = record_type(kind)
    return list(fields(record)) if record else []


def record_type(kind: Any) -> Any:
    """A dataclass, or the one in a union; None for other types."""
    return next((member for member in (kind, *get_args(kind)) if is_dataclass(member)), None)


def kind_of(function: Callable[..., Any], key: str) -> Any:
    """The type of a dotted key; None where a class that is not known yet decides, or there is no such key."""
    first, _, rest = key.partition(".")
    kind = get_type_hints(function).get(first)
    if not rest:
        return kind
    record = record_type(kind)
    return get_type_hints(record).get(rest) if record else None


def parts(function: Callable[..., Any], key: str, class_name: str = "") -> list[type]:
    """The dataclass or the classes that a recipe may give for a dotted key, as `objective.encoder`.

    Args:
        function: Of the command.
        key: Dotted.
        class_name: Which of the classes, by its name in mae_kit or its path; by default all.

    Raises:
        UserError: There is no such class, or no settings are below the key.
    """
    bases = set(_part_types(get_type_hints(function), key.split(".")))
    if not bases:
        raise UserError(f"--{key}.help", f"{key} has no settings of its own", "--help lists those that have")
    if "." in class_name:
        return [chosen_class(tuple(bases), {"class_path": class_name}, key)]
    known = {one.__name__: one for base in bases for one in subclasses(base) or [base]}
    found = [known[name] for name in sorted(known) if class_name.lower() in ("", name.lower())]
    if not found:
        fix = f"choose one of {', '.join(sorted(known))}" if len(known) > 1 else f"give --{key}.help alone"
        raise UserError(f"--{key}.help", f"{key} has no class {class_name}", fix)
    return found


def _part_types(hints: Mapping[str, Any], parts: list[str]) -> Iterator[type]:
    kind = hints.get(parts[0])
    record = record_type(kind)
    for option in (record,) if record else class_options(kind):
        if len(parts) == 1:
            yield option
            continue
        for one in (option, *subclasses(option)):
            yield from _part_types(get_type_hints(one.__init__), parts[1:])


def subclasses(kind: type) -> list[type]:
    """All classes below one."""
    return [one for direct in kind.__subclasses__() for one in (direct, *subclasses(direct))]


def is_open(kind: Any) -> bool:
    """Whether settings of such a type are not known before its value is: a class, or a free mapping."""
    return bool(class_options(kind)) or dict in (kind, get_origin(kind))


def class_options(kind: Any) -> tuple[type, ...]:
    """The classes that a recipe may name for a parameter of this type, or whose subclasses; none for other types."""
    return tuple(member for member in (kind, *get_args(kind)) if _is_class(member))


def _is_class(kind: Any) -> bool:
    """Whether it is a class that recipes name, and neither a scalar nor a dataclass."""
    plain = kind in _SCALARS or kind is Any or is_dataclass(kind)
    return inspect.isclass(kind) and get_origin(kind) is None and not plain


def nearest(word: str, known: Iterable[str]) -> str:
    """A question about the nearest known word, or an empty string; the last part counts, then the whole."""
    known = list(known)
    lasts = {one.rpartition(".")[2]: one for one in known if one.rpartition(".")[0] == word.rpartition(".")[0]}
    near = [lasts[last] for last in difflib.get_close_matches(word.rpartition(".")[2], lasts, 1)]
    near = near or difflib.get_close_matches(word, known, 1)
    near = near or [one for one in known if one.rpartition(".")[2] == word.rpartition(".")[2]]
    return f"did you mean {near[0]}?" if near else ""


def _mismatch(key: str, value: Any, kinds: Iterable[Any]) -> UserError:
    return UserError(key, f"{key} is {value!r}", f"give {' or '.join(map(type_name, kinds))}")


def type_name(kind: Any) -> str:
    """A type as people write it: `an integer or null`, `'a' or 'b'`, `a,b,...`."""
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(map(type_name, members))
    if origin is Literal:
        return " or ".join(map(repr, members))
    if origin in (list, tuple):
        return ",".join("abcd"[: len(members)]) if origin is tuple and ... not in members else "a,b,..."
    if origin is dict:
        return "{key: value}"
    return _NAMES.get(kind) or getattr(kind, "__name__", str(kind))
