"""Examples in docstrings: they run, and print what they say."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import mae_kit as mk

ROOT = Path(__file__).parents[1]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "mae_kit").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


TESTS = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module: str):
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted and not results.failed


@pytest.mark.parametrize("name", mk.__all__)
def test_every_public_name_has_an_example(name: str):
    """In its docstring, or in a test that calls it by its public name or as the command that it is."""
    if ">>> " in (inspect.getdoc(getattr(mk, name)) or ""):
        return
    calls = rf"\b(mk|mae_kit)\.{name}\(|commands\.{name} import (.*, )?{name}\n(.|\n)*\b{name}\("
    assert any(re.search(calls, test) for test in TESTS), f"{name}: none in its docstring, none in a test"
