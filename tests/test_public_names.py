"""What `mae_kit` offers: every name is found when it is asked for, and editors know all of them."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import Programs

import mae_kit
from mae_kit.cli.main import COMMANDS, load


@pytest.mark.parametrize("name", mae_kit.__all__)
def test_every_name_resolves_and_has_a_docstring(name: str):
    value = getattr(mae_kit, name)
    assert value.__name__ == name and inspect.getdoc(value) and name in dir(mae_kit)


def test_every_command_is_a_function():
    assert {load(verb).__name__ for verb in COMMANDS} <= set(mae_kit.__all__)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="nothing"):
        _ = mae_kit.nothing  # type: ignore[attr-defined]


def test_editors_know_every_name():
    tree = ast.parse(Path(mae_kit.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [one for one in block.body if isinstance(one, ast.ImportFrom)]
    known = {name.asname: one.module for one in imports for name in one.names if name.asname}
    typed = [one.target.id for one in block.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
    known |= {name: f"mae_kit.commands.{name}" for name in typed}
    assert known == {name: f"mae_kit.{module}" for name, module in mae_kit.MODULES.items()}


def test_a_command_keeps_its_name_where_a_module_is_imported_first(programs: Programs):
    """In a process that has imported only the libraries of others."""
    code = (
        "import sys\nfor name in [name for name in sys.modules if name.startswith('mae_kit')]: del sys.modules[name]\n"
    )
    code += "import pkgutil, mae_kit\n"
    code += "for m in pkgutil.walk_packages(mae_kit.__path__, 'mae_kit.'): '__main__' in m.name or __import__(m.name)\n"
    code += "import inspect\nassert not [n for n in mae_kit.__all__ if inspect.ismodule(getattr(mae_kit, n))]"
    subprocess.run([programs.python, "-c", code], check=True)


def test_importing_the_package_is_light():
    code = "import sys, mae_kit, mae_kit.cli.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "numpy", "jsonargparse", "rich", "yaml", "timm", "matplotlib"} & set(loaded)
