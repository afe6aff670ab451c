"""Signatures read from the source are those of the imported functions and classes, and import nothing heavy."""
# Also tests cli/help.py.

import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

import mae_kit
from mae_kit.cli.help import help_of, help_of_part
from mae_kit.cli.main import COMMANDS, load, outlined
from mae_kit.cli.outline import outline
from mae_kit.cli.schema import type_name

HEAVY = {"torch", "numpy", "pytorch_lightning", "timm", "matplotlib"}
CLASSES = [name for name in mae_kit.__all__ if isinstance(getattr(mae_kit, name), type)]


def stated(function: Callable[..., Any]) -> list[tuple[object, ...]]:
    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    return [(one.name, one.kind, str(one.default), type_name(hints.get(one.name, Any))) for one in parameters]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command: str):
    assert stated(outlined(command)) == stated(load(command))
    kind = COMMANDS[command].recipes
    assert help_of(command, outlined(command), kind) == help_of(command, load(command), kind)


@pytest.mark.parametrize("name", CLASSES)
def test_classes(name: str):
    kind, real = outline(name), getattr(mae_kit, name)
    assert kind.__name__ == name and inspect.getdoc(kind) == inspect.getdoc(real)
    if "__init__" in vars(real):
        assert stated(kind.__init__) == stated(real.__init__)


@pytest.mark.parametrize(
    ("command", "key"), [("pretrain", "data"), ("pretrain", "machine"), ("finetune", "model"), ("tokenizer", "data")]
)
def test_groups_of_settings(command: str, key: str):
    assert help_of_part(outlined(command), key) == help_of_part(load(command), key)


def test_help_offers_groups_of_settings_only_where_there_are_any():
    offered = [name for name, about in COMMANDS.items() if "--KEY.help" in help_of(name, outlined(name), about.recipes)]
    assert offered == ["pretrain", "tokenizer", "finetune", "plan"]


WORDS = [
    "",
    "--help",
    "--version",
    "--completion bash",
    "pretrian",
    "recipes",
    "recipes mae_vit_b16",
    "pretrain --help",
    "pretrain mae_vit_tiny_64px --help",
    "pretrain --objective.encoder.help ViT",
    "pretrain --objective.help Mea",
    "pretrain mae_vit_tiny_64px",
    "pretrain mae_vit_tiny_64xp --data x",
    "pretrain mae_vit_tiny_64px --data x --epocs 3",
    "pretrain mae_vit_tiny_64px --data x --epochs three",
    "evaluate run --methds knn",
    "evaluate run --data nowhere",
    "finetune vit_tiny_64px_quick --data nowhere",
    "pretrain mae_vit_tiny_64px --data nowhere",
    "predict run",
]


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = f"import sys; from mae_kit.cli.main import main\nfor words in {WORDS!r}: print(words, main(words.split()))\n"
    code += f"print(sorted({HEAVY!r} & {{*sys.modules}}), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"
    for words in WORDS[-10:]:
        assert f"{words} 2\n" in done.stdout
