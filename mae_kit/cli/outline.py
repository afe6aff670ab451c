"""Signatures without imports: functions and classes as their source states them, with their bodies left out.

`mae-kit pretrain --help` needs names, types, defaults and docstrings; importing them takes seconds, for torch.
"""

import ast
import importlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE: Any = importlib.import_module("mae_kit")  # by name: its commands lie above this room
_ROOT = Path(PACKAGE.__file__).parent
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class _Foreign(type):
    """The metaclass of what stands for anything of a library that is not imported."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _foreign(name)

    def __getitem__(cls, _: object) -> Any:
        return cls


def outline(name: str) -> Any:
    """A public name of mae_kit, as its source states it.

    Args:
        name: As `mae_kit.NAME`.

    Returns:
        A function or class with the signature, types, defaults and docstring of the original. A class has no methods
        but its constructor; none of them can be run.
    """
    return _defined(f"mae_kit.{PACKAGE.MODULES[name]}", name)


def outline_classes() -> None:
    """Outline every public class, so that each is known as a subclass of its base."""
    for name in PACKAGE.MODULES:
        if name[0].isupper():
            outline(name)


@cache
def _defined(module: str, name: str) -> Any:
    """What a module of mae_kit means by a name."""
    node = _statements(module).get(name)
    if isinstance(node, ast.ImportFrom):
        original = next(one.name for one in node.names if name in (one.asname, one.name))
        return _imported(str(node.module), original)
    if isinstance(node, ast.Import) or node is None:
        return _foreign(name)
    used = (_names(node) & _statements(module).keys()) - {name}
    namespace = {"__name__": module} | {one: _defined(module, one) for one in used}
    exec(compile(ast.Module([node], []), module, "exec"), namespace)
    return namespace[name]


def _imported(module: str, name: str) -> Any:
    top = module.partition(".")[0]
    if top == "mae_kit":
        return _defined(module, name)
    return getattr(importlib.import_module(module), name) if top in sys.stdlib_module_names else _foreign(name)


def _foreign(name: str) -> Any:
    return _Foreign(name, (), {})


def _names(node: ast.stmt) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)}


@cache
def _statements(module: str) -> dict[str, ast.stmt]:
    """The statements of a module by the names that they define; functions and classes without their bodies."""
    place = _ROOT.joinpath(*module.split(".")[1:])
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    tree = ast.parse(file.read_bytes()) if file.is_file() else ast.Module([], [])
    return {name: node for statement in tree.body for name, node in _outlined(statement)}


def _outlined(node: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((one.asname or one.name.partition(".")[0], node) for one in node.names)
    elif isinstance(node, ast.Assign):
        yield from ((one.id, node) for target in node.targets for one in ast.walk(target) if isinstance(one, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id, node
    elif isinstance(node, _Function):
        yield node.name, _signature(node)
    elif isinstance(node, ast.ClassDef):
        fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
        init = [_signature(one) for one in node.body if isinstance(one, _Function) and one.name == "__init__"]
        node.body = [*_docstring(node), *fields, *init, ast.Pass()]
        yield node.name, ast.fix_missing_locations(node)


def _signature(node: Any) -> ast.stmt:
    node.body, node.decorator_list = [*_docstring(node), ast.Pass()], []
    return ast.fix_missing_locations(node)


def _docstring(node: Any) -> list[ast.stmt]:
    return node.body[:1] if ast.get_docstring(node) is not None else []
