"""Every recipe: parses, builds its model (without memory), and says how it is used."""
# Also tests files/recipe_file.py.

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support.tiny_models import save_tokenizer

from mae_kit.cli.main import COMMANDS, load, read
from mae_kit.commands.recipes import facts
from mae_kit.data.transforms.augment import IMAGENET_MEAN, IMAGENET_STD
from mae_kit.files.recipe_file import FOLDER
from mae_kit.tasks.classifier import ModelSpec, build_classifier

NEEDED = {
    "pretrain": ["--data.path", "x"],
    "tokenizer": ["--data.path", "x"],
    "finetune": ["--data.path", "x", "--data.val", "y"],
}
RECIPES = [(verb, path) for verb in NEEDED for path in sorted((FOLDER / COMMANDS[verb].recipes).glob("*.yaml"))]


@pytest.fixture(params=RECIPES, ids=lambda recipe: recipe[1].stem)
def recipe(request: pytest.FixtureRequest) -> tuple[str, Path]:
    return request.param


def test_it_parses_and_its_model_can_be_built(recipe: tuple[str, Path], tmp_path: Path):
    verb, path = recipe
    words = ["--config", str(path), *NEEDED[verb], "--run", "run"]
    if "objectives.BEiT" in path.read_text() and verb == "pretrain":
        words += ["--objective.tokenizer", str(save_tokenizer(tmp_path))]
    with torch.device("meta"):
        arguments: dict[str, Any] = read(verb, words)
    optimization, batch_size = arguments["optimization"], arguments["data"].batch_size
    assert 0 < optimization.peak(batch_size) < 0.02 and optimization.warmup_epochs < optimization.epochs
    assert optimization.min_learning_rate < optimization.peak(batch_size)
    if verb == "pretrain":
        parameters = sum(parameter.numel() for parameter in arguments["objective"].encoder.parameters())
        assert parameters > 100_000 and arguments["objective"].encoder.config["init_args"]["img_size"]
        assert f" {parameters / 1e6:.3g}M parameters" in (facts(path)["size"] or "")


def test_beits_images_are_normalized_as_the_command_for_imagenet_1k_has_it():
    data = yaml.safe_load((FOLDER / "pretrain/beit_b16.yaml").read_text())["data"]
    assert (data["mean"], data["std"]) == (IMAGENET_MEAN, IMAGENET_STD)


def test_its_head_says_what_it_is_and_how_it_is_run(recipe: tuple[str, Path]):
    verb, path = recipe
    head = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert "Command:" in head and f"mae-kit {verb} {path.stem} " in head, head


def test_it_is_complete_but_for_what_the_user_brings(recipe: tuple[str, Path]):
    verb, path = recipe
    known = set(inspect.signature(load(verb)).parameters)
    given = yaml.safe_load(path.read_text())
    assert set(given) <= known
    own = {"pretrain": {"objective"}, "tokenizer": {"model", "relaxation"}, "finetune": set()}[verb]
    assert own | {"data", "optimization"} <= set(given)


def model_of(*words: str | Path) -> ModelSpec:
    words = (*words, *NEEDED["finetune"])
    return read("finetune", [str(word) for word in words])["model"]


def test_any_model_of_timm_trains_by_name_and_the_arguments_of_another_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    spec = model_of("--config", "convnext_tiny", "--model.name", "test_resnet", "--run", "run")
    assert (spec.name, spec.args) == ("test_resnet", {})
    build_classifier(spec, 2, None, 0.1, (32, 32))
    assert len(caplog.messages) == 1
    other = tmp_path / "other.yaml"
    other.write_text("model: {name: test_resnet}")
    assert model_of("--config", "convnext_tiny", "--config", other, "--run", "run").args == {}
    assert len(caplog.messages) == 2


def test_arguments_of_a_model_stay_where_it_is_the_same_or_they_are_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    words = ["--config", "convnext_tiny", "--run", "run"]
    assert model_of(*words, "--model.name=test_resnet", "--model.args", "{a: 1}").args == {"a": 1}
    assert model_of(*words, "--model.name", "convnext_tiny").args == {"ls_init_value": 1e-6}
    (tmp_path / "config.yaml").write_text("model: {name: test_resnet, args: {b: 2}}")
    assert model_of(*words, "--config", tmp_path / "config.yaml").args == {"b": 2}
    saved = (FOLDER / "downstream" / "convnext_tiny.yaml").read_text().replace("name: convnext_tiny", "name: x")
    (tmp_path / "config.yaml").write_text(saved)
    assert model_of("--resume", tmp_path, "--data.batch_size", "2").args == {"ls_init_value": 1e-6}
    assert not caplog.messages
