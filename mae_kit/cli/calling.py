"""A verb called from Python: a string will do where it asks for a path, a path for a string, and one for a list."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints


def with_any_path(verb: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, signature and docstring included; the command line reads all of these from words."""
    kinds, signature = get_type_hints(verb), inspect.signature(verb)

    @functools.wraps(verb)
    def call(*positional: Any, **named: Any) -> Any:
        given = signature.bind(*positional, **named)
        for name, value in given.arguments.items():
            given.arguments[name] = _fit(value, kinds.get(name))
        return verb(*given.args, **given.kwargs)

    return call


def _fit(value: Any, kind: Any) -> Any:
    wanted = (kind, *get_args(kind))  # of `Path | None` both
    if isinstance(value, str) and Path in wanted and str not in wanted:
        return Path(value)
    if isinstance(value, Path) and str in wanted and Path not in wanted:
        return str(value)
    if isinstance(value, str | Path) and get_origin(kind) is list:
        return [value]
    return value
