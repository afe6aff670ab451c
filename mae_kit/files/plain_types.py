"""Plain values, as JSON and YAML have them, held against a type before anything is done with them."""

import re
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

LARGEST = {int: 2**63 - 1, float: 1e30}


def mismatch(value: Any, kind: Any, place: str = "") -> str:
    """What in a value is not of a type, in a few words; empty where nothing is.

    Args:
        value: From a file.
        kind: A scalar, None, Any, Literal, list, dict, union or TypedDict; `Annotated[float, (low, high)]` bounds a
            number, `Annotated[str, pattern]` a text. A float may be NaN, not infinite.
        place: Of the value in the file, dotted.
    """
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        faults = [mismatch(value, member, place) for member in members]
        return "" if "" in faults else max(faults, key=len)
    if origin is Annotated:
        return mismatch(value, members[0], place) or ("" if _within(value, members[1]) else _told(value, place))
    if origin is list:
        return _first(value, list, place, lambda: ((members[0], item, f"{place}[]") for item in _distinct(value)))
    if origin is dict:
        return _first(value, dict, place, lambda: ((members[1], item, _at(place, key)) for key, item in value.items()))
    if is_typeddict(kind):
        return _record(value, kind, place)
    fits = kind is Any or (value in members if origin is Literal else _is(value, kind))
    return "" if fits else _told(value, place)


def _record(value: Any, kind: Any, place: str) -> str:
    """Keys that the type does not name may have any value."""
    hints = get_type_hints(kind, include_extras=True)
    if isinstance(value, dict) and (missing := sorted(kind.__required_keys__ - value.keys())):
        return f"it has no {_at(place, missing[0])}"
    here = [name for name in hints if isinstance(value, dict) and name in value]
    return _first(value, dict, place, lambda: ((hints[name], value[name], _at(place, name)) for name in here))


def _first(value: Any, kind: type, place: str, parts: Any) -> str:
    if not isinstance(value, kind):
        return _told(value, place)
    return next(filter(None, (mismatch(item, member, where) for member, item, where in parts())), "")


def _distinct(items: list[Any]) -> Any:
    """Of many equal numbers, as in a confusion matrix, one."""
    return set(items) if all(type(item) in (int, float) for item in items) else items


def _is(value: Any, kind: Any) -> bool:
    if (kind is float and type(value) is int) or (type(value) is kind and kind in LARGEST):
        return value != value or abs(value) <= LARGEST[kind]
    return value is None if kind in (None, type(None)) else type(value) is kind


def _within(value: Any, bound: Any) -> bool:
    if isinstance(bound, re.Pattern):
        return bool(bound.fullmatch(value))
    return value != value or bound[0] <= value <= bound[1]


def _at(place: str, key: Any) -> str:
    return f"{place}.{key}" if place else str(key)


def _told(value: Any, place: str) -> str:
    return f"{place or 'it'} is {repr(value)[:60]}"
