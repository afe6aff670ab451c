"""Classes outside mae_kit: only what the user has allowed is imported, never what a file asks for."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.errors import raises

from mae_kit.classes import own_code
from mae_kit.cli.schema import arguments
from mae_kit.files.recipe_file import MAX_DEPTH, read_recipe


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own_code, "_list", lambda: tmp_path / "data" / "allowed.txt")
    monkeypatch.setattr(own_code, "_allowed", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text("class Blur: pass\nopen('imported', 'w').close()\n")
    return name


def test_a_file_allows_nothing_and_the_user_does(module: str, monkeypatch: pytest.MonkeyPatch):
    with raises("config.class_path"):
        own_code.find_class(f"{module}.Blur")
    assert not Path("imported").exists() and own_code.in_working_directory(module)
    own_code.allow(module)
    assert own_code.find_class(f"{module}.Blur").__name__ == "Blur" and Path("imported").exists()
    monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(own_code, "_allowed", set())
    assert own_code.find_class(f"{module}.Blur").__name__ == "Blur", "it is remembered for later commands"


@pytest.mark.parametrize("path", ["nowhere.Class", "Class", "mae_kit.nothing.Class", "mae_kit.errors.Nothing", "a..b"])
def test_what_is_not_there(module: str, path: str):
    with raises("config.class_path"):
        own_code.find_class(path)
    with raises("import"):
        own_code.allow("nowhere_at_all")


HOSTILE: dict[str, Any] = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "OWNED"]}}


@pytest.mark.parametrize("value", [{"x": HOSTILE}, {"x": [HOSTILE]}, {"x": {"y": HOSTILE}}, f"x: {HOSTILE}", HOSTILE])
def test_a_free_mapping_makes_no_object(value: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)

    def command(args: dict[str, Any], path: Path | None = None) -> None:
        raise AssertionError

    started: list[object] = []
    monkeypatch.setattr(subprocess.Popen, "__init__", lambda *_, **__: started.append(1))
    with raises("config.class_path"):
        made = arguments(command, {"args": value})["args"]
        assert made.keys() == {"class_path", "init_args"}, "the outermost is a mapping like others"
        raise own_code.UserError("config.class_path", "inert", "")
    assert not started and not (tmp_path / "OWNED").exists()


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x",
        "a: !!python/object:os.system {}",
        "a: 1\na: 2",
        "- 1",
        "a: [",
        "",
        "a: !!bool x",
        "a: !!int ''",
        "a: !!timestamp x",
        "a: !!set {b}",
        "a: !own b",
        "<<: {a: 1}",
        f"a: 0x{'f' * 5000}",
        f"a: {'9' * 101}",
        f"a: {'9' * 5000}.0",
        "? [1]\n: 2",
    ],
    ids=lambda text: text[:20],
)
def test_yaml_that_is_refused(text: str, tmp_path: Path):
    (tmp_path / "a.yaml").write_text(text)
    with raises("recipe.yaml", "recipe.mapping"):
        read_recipe(tmp_path / "a.yaml")


def test_dates_and_numbers_to_base_60_are_text(tmp_path: Path):
    """As in YAML 1.2: no value of a recipe is an object or a surprise."""
    texts = ["2024-01-01", "2024-01-01 10:00:00", "16:9", ":".join(["1"] * 400) + ":1.5"]
    (tmp_path / "a.yaml").write_text("".join(f"k{number}: {text}\n" for number, text in enumerate(texts)))
    assert [*read_recipe(tmp_path / "a.yaml").values()] == texts


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 5_000])
def test_yaml_that_is_too_deep(depth: int, tmp_path: Path):
    (tmp_path / "a.yaml").write_text(f"a: {'[' * depth}{']' * depth}")
    with raises("recipe.yaml"):
        read_recipe(tmp_path / "a.yaml")
