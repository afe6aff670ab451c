"""Classes outside mae_kit, as a user's own objective: which of them a recipe or a file may name.

A class path in a file must not choose what code runs. Apart from mae_kit's classes it may name one that is imported
already, or one in a module that the user has allowed: by `--import MODULE`, or by training with a recipe of their own
that names a module in the working directory. What was allowed is remembered by the path of the module's file, so that
`reconstruct`, `evaluate` and the like load such a run from the same directory. A run folder or a downloaded file
allows nothing.
"""

import importlib
import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

import platformdirs

from mae_kit.errors import UserError

_allowed: set[str] = set()  # files of modules, in this process


def allow(module: str) -> None:
    """Allow a module, now and in later processes, and import it; the working directory is searched last.

    Raises:
        UserError: There is no such module.
    """
    file = _file_of(module)
    if file is None:
        raise UserError("import", f"no module {module}", f"put {module}.py into the working directory, or install it")
    if file not in _remembered():
        _allowed.add(file)
        _remember(file)
    _import(module)


def in_working_directory(module: str) -> bool:
    """Whether importing a module would take it from the working directory."""
    file = _file_of(module)
    return file is not None and Path.cwd() in Path(file).parents


def find_class(class_path: str) -> type:
    """Import the class that a file names.

    Args:
        class_path: `MODULE.CLASS`.

    Raises:
        UserError: It is not allowed, or there is no such class.
    """
    module, _, name = class_path.rpartition(".")
    if module not in sys.modules and module.split(".")[0] != "mae_kit" and _file_of(module) not in _remembered():
        fix = f"add --import {module} if you trust that module" if module else "give MODULE.CLASS"
        raise UserError("config.class_path.not_trusted", f"{class_path} is not a class of mae_kit", fix)
    try:
        loaded = _import(module)
    except ImportError as error:
        raise UserError("config.class_path.own_import", f"{class_path} cannot be imported", str(error)) from error
    found = getattr(loaded, name, None) if module == "mae_kit" else vars(loaded).get(name)
    if not isinstance(found, type):
        raise UserError(
            "config.class_path.unknown", f"{module} has no class {name}", f"choose one of {_classes(module)}"
        )
    return found


def _classes(module: str) -> str:
    kinds = (value for value in vars(sys.modules[module]).values() if isinstance(value, type))
    return ", ".join(kind.__name__ for kind in kinds if kind.__module__.startswith(module.split(".")[0]))


def _import(module: str) -> ModuleType:
    if in_working_directory(module) and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last, so that nothing in it hides an installed module
    return importlib.import_module(module)


def _file_of(module: str) -> str | None:
    """The file of a module's topmost package, found without importing anything; the working directory comes last."""
    top = module.split(".")[0]
    try:
        spec = importlib.util.find_spec(top) or PathFinder.find_spec(top, [str(Path.cwd())])
    except (ImportError, ValueError):
        return None
    return str(Path(spec.origin).resolve()) if spec and spec.origin else None


def _list() -> Path:
    return Path(platformdirs.user_data_dir("mae_kit")) / "allowed_modules.txt"


def _remembered() -> set[str]:
    try:
        return _allowed | set(_list().read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):
        return _allowed


def _remember(file: str) -> None:
    try:
        _list().parent.mkdir(parents=True, exist_ok=True)
        with _list().open("a", encoding="utf-8") as out:
            out.write(f"{file}\n")
    except OSError:  # without a home: this process alone knows
        return
