"""The commands that a page prints are the command line's own."""

import json
import re
import shlex
from dataclasses import asdict
from html import unescape
from pathlib import Path

import pytest
import torch
from support.tiny_models import save_tokenizer

from mae_kit.cli.main import read
from mae_kit.commands.report import report
from mae_kit.data.index.statistics import IMAGENET
from mae_kit.encoders import create_encoder
from mae_kit.encoders.timm_models import pair
from mae_kit.files.recipe_file import FOLDER, read_recipe
from mae_kit.reports.commands import next_steps
from mae_kit.reports.folder import read_folder
from mae_kit.tasks.classifier import build_classifier
from mae_kit.weights.config import ModelConfig


def commands(run: Path) -> list[list[str]]:
    """The words of each command on the page."""
    blocks = re.findall("<pre>(.*?)</pre>", next_steps(read_folder(run)))
    return [shlex.split(unescape(re.sub("<.*?>", "", block))) for block in blocks]


def understood(words: list[str]) -> dict:
    program, name, *rest = words
    assert program == "mae-kit"
    return read(name, rest)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "a run"
    folder.mkdir()
    (folder / "config.yaml").write_text("objective: {}\ndata: {path: my photos/train-*.tar, flip: false}\n")
    return folder


@pytest.mark.parametrize(
    ("recipe", "model", "arguments", "size", "named"),
    [
        (None, "vit_tiny_patch16_224", {"img_size": 64, "patch_size": 8}, 64, "vit_tiny_patch16_224"),
        (None, "vit_small_patch16_224", {"img_size": [64, 48]}, [64, 48], None),
        ("vit_b16", "vit_base_patch16_224", {}, 224, "vit_base_patch16_224"),
        ("vit_b16", "vit_base_patch16_224", {"embed_dim": 384}, 224, None),
        ("vit_b16", "vit_base_patch16_224", {"img_size": 96}, 96, "vit_base_patch16_224"),
        ("vit_b16", "vit_base_patch16_224", {"patch_size": 8}, 224, None),
        ("beit_b16", "beit_base_patch16_224", {"global_pool": "token"}, 224, "beit_base_patch16_224"),
        ("beit_b16", "beit_base_patch16_224", {"img_size": 64, "embed_dim": 192}, 64, None),
    ],
)
def test_an_encoder_of_any_kind_is_trained_on_at_its_size(
    run: Path, recipe: str | None, model: str, arguments: dict, size: int | list[int], named: str | None
) -> None:
    (run / "encoder.json").write_text(json.dumps({"model": model, "model_args": arguments}))
    config = {"objective": {}, "data": {"path": "my photos/train-*.tar", "flip": False}, "finetune": recipe}
    (run / "config.yaml").write_text(json.dumps(config))
    finetune, reconstruct, inspect = commands(run)
    meant = understood(finetune)
    assert meant["encoder"] == str(run)
    assert meant["run"] == run.with_name("a run-classifier")
    assert (meant["data"].path, meant["data"].val) == ("my photos/train-*.tar", "my photos/val-*.tar")
    assert meant["data"].image_size == size
    assert not meant["augmentation"].flip
    assert (meant["model"] and meant["model"].name) == named
    assert understood(reconstruct)["run"] == understood(inspect)["run"] == run


PRETRAININGS = sorted(path.stem for path in (FOLDER / "pretrain").glob("*.yaml"))


@pytest.mark.parametrize("name", PRETRAININGS)
def test_the_encoder_of_a_recipe_is_trained_on_by_the_recipe_it_names(run: Path, name: str) -> None:
    recipe = read_recipe(FOLDER / "pretrain" / f"{name}.yaml")
    config = encoder_config(name, run)
    assert config.image_size
    (run / "encoder.json").write_text(json.dumps(asdict(config)))
    (run / "config.yaml").write_text(json.dumps({"objective": {}, "data": {}, "finetune": recipe["finetune"]}))
    finetune = commands(run)[0]
    assert finetune[2] == recipe["finetune"]
    assert finetune[-1] == "--against-scratch"
    with torch.device("meta"):
        meant = understood(finetune)
        encoder = create_encoder(config.model, config.model_args, config.image_size)
        size = pair(meant["data"].image_size)
        assert config.image_size == size
        build_classifier(meant["model"], 2, encoder, meant["drop_path"], size, encoder.channels)


def encoder_config(name: str, folder: Path) -> ModelConfig:
    """What a run of a recipe writes as its encoder.json."""
    words = ["mae-kit", "pretrain", name, "--data", "x", "--run", "y"]
    if name.startswith("beit"):
        words += ["--objective.tokenizer", str(save_tokenizer(folder.parent))]
    with torch.device("meta"):
        asked = understood(words)
    objective, data = asked["objective"], asked["data"]
    encoder, kind = objective.encoder, type(objective).__name__.lower()
    mean, std = data.mean or IMAGENET[0], data.std or IMAGENET[1]
    return ModelConfig(encoder.name, encoder.model_args, mean, std, kind, 1, image_size=encoder.image_size)


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("s3://bucket/dir/train-*.tar", "s3://bucket/dir/val-*.tar"),
        ("/trained/train-{000..003}.tar", "/trained/val-{000..003}.tar"),
        ("train-*.tar", "val-*.tar"),
        ("photos/*.tar", None),
        ("photos", None),
    ],
)
def test_validation_shards_are_named_where_training_has_its_own(run: Path, train: str, val: str | None) -> None:
    (run / "config.yaml").write_text(f"objective: {{}}\ndata: {{path: '{train}'}}\n")
    (run / "encoder.json").write_text(json.dumps({"model": "vit_tiny_patch16_224", "model_args": {}}))
    assert understood(commands(run)[0])["data"].val == val


def test_a_run_under_way_is_resumed(run: Path) -> None:
    assert commands(run) == [["mae-kit", "pretrain", "--resume", str(run)]]


def test_a_tokenizer_is_predicted_by_a_beit(run: Path) -> None:
    (run / "config.yaml").write_text("relaxation: {}\ndata: {path: my photos/train-*.tar}\n")
    assert commands(run) == [["mae-kit", "tokenizer", "--resume", str(run)]]
    (run / "tokenizer.safetensors").touch()
    ((_, verb, *words),) = commands(run)
    at = words.index("--objective.tokenizer")
    assert verb == "pretrain" and words[at + 1] == str(run)
    words[at + 1] = str(save_tokenizer(run))
    assert understood(["mae-kit", verb, *words])["data"].path == "my photos/train-*.tar"


def test_a_demo_is_followed_by_own_images_and_these_by_a_longer_pretraining(run: Path) -> None:
    (run / "demo.json").write_text('{"pretraining": "pretrain", "images": null, "rows": []}')
    assert [words[1] for words in commands(run)] == ["demo"]
    (run / "demo.json").write_text('{"pretraining": "pretrain", "images": "my photos", "rows": []}')
    ((_, verb, *words),) = commands(run)
    assert verb == "pretrain" and understood(["mae-kit", verb, *words])["data"].path == "my photos"


def test_the_next_command_is_in_the_result(run: Path) -> None:
    assert report(run)["next"] == f"mae-kit pretrain --resume '{run}'"


def test_a_classifier_predicts(run: Path) -> None:
    (run / "result.json").write_text('{"top1": 0.5, "samples": 10}')
    (predict,) = commands(run)
    assert understood(predict)["images"] == ["IMAGES"]
