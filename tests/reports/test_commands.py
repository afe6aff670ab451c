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
from mae_kit.encoders import backbone
from mae_kit.encoders.timm_models import pair
from mae_kit.recipe_file import FOLDER
from mae_kit.reports.commands import next_steps
from mae_kit.reports.folder import read_folder
from mae_kit.tasks.classifier import from_tensors
from mae_kit.weights.encoder_file import EncoderConfig


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
    (folder / "config.yaml").write_text("objective: {}\ndata: {shards: my photos/train-*.tar, flip: false}\n")
    return folder


@pytest.mark.parametrize(
    ("objective", "model", "arguments", "size", "named"),
    [
        ("mae", "vit_tiny_patch16_224", {"img_size": 64, "patch_size": 8}, 64, None),
        ("mae", "vit_small_patch16_224", {"img_size": [64, 48]}, [64, 48], None),
        ("mae", "vit_base_patch16_224", {}, 224, "vit_base_patch16_224"),
        ("mae", "vit_base_patch16_224", {"embed_dim": 384}, 224, None),
        ("mae", "vit_base_patch16_224", {"img_size": 96}, 96, None),
        ("beit", "beit_base_patch16_224", {"global_pool": "token"}, 224, "beit_base_patch16_224"),
        ("beit", "beit_base_patch16_224", {"img_size": 64, "embed_dim": 192}, 64, None),
    ],
)
def test_an_encoder_of_any_kind_is_trained_on_at_its_size(
    run: Path, objective: str, model: str, arguments: dict, size: int | list[int], named: str | None
) -> None:
    (run / "encoder.json").write_text(json.dumps({"model": model, "model_args": arguments, "objective": objective}))
    finetune, reconstruct, inspect = commands(run)
    meant = understood(finetune)
    assert meant["encoder"] == str(run)
    assert meant["run"] == run.with_name("a run-classifier")
    assert (meant["data"].train, meant["data"].val) == ("my photos/train-*.tar", "my photos/val-*.tar")
    assert meant["data"].image_size == size
    assert not meant["augmentation"].flip
    assert (meant["model"] and meant["model"].name) == named
    assert understood(reconstruct)["run"] == understood(inspect)["run"] == run


MADE_FOR = {
    "beit_b16": "beit_b16",
    "beit_tiny_64px": "vit_tiny_64px",
    "fcmae_convnextv2_atto_64px": "convnextv2_atto_64px",
    "fcmae_convnextv2_base": "convnextv2_base",
    "hiera_mae_64px": "hiera_64px",
    "hiera_mae_base": "hiera_base",
    "igpt_bert_tiny_16px": "igpt_tiny_16px",
    "igpt_s_32px": "igpt_s_32px",
    "igpt_tiny_16px": "igpt_tiny_16px",
    "mae_vit_b16": "vit_b16",
    "mae_vit_h14": "vit_h14",
    "mae_vit_l16": "vit_l16",
    "mae_vit_tiny_64px": "vit_tiny_64px",
    "mae_vit_tiny_64px_quick": "vit_tiny_64px",  # encoder.json does not tell them apart
    "masked_patch_vit_b16": "vit_b16",
    "masked_patch_vit_tiny_64px": "vit_tiny_64px",
    "maskfeat_vit_b16": "vit_b16_maskfeat",
    "maskfeat_vit_tiny_64px": "vit_tiny_64px",
    "simmim_swin_b_192px": "swin_b_192px",
    "simmim_swin_tiny_64px": "vit_tiny_64px",
    "simmim_vit_b16": "vit_b16_simmim",
    "simmim_vit_tiny_64px": "vit_tiny_64px",
}
"""README's table: the fine-tuning of each pretraining."""


def test_every_pretraining_has_its_fine_tuning() -> None:
    recipes = {path.stem for path in (FOLDER / "pretrain").glob("*.yaml")}
    assert set(MADE_FOR) == {name for name in recipes if not name.startswith("demo_")}


@pytest.mark.parametrize("name", MADE_FOR)
def test_the_encoder_of_a_recipe_is_trained_on_by_the_recipe_made_for_it(run: Path, name: str) -> None:
    config = encoder_config(name, run)
    assert config.image_size
    (run / "encoder.json").write_text(json.dumps(asdict(config)))
    finetune = commands(run)[0]
    assert finetune[finetune.index("--config") + 1] == MADE_FOR[name]
    assert finetune[finetune.index("--data.image_size") + 1] == str(config.image_size[0]), "a square, one number"
    with torch.device("meta"):
        meant = understood(finetune)
        tensors = backbone(config.model, config.model_args, config.image_size).model.state_dict()
        size = pair(meant["data"].image_size)
        assert config.image_size == list(size)
        from_tensors("of the run", config, tensors, meant["model"], 2, meant["drop_path"], size, len(config.mean))


def encoder_config(name: str, folder: Path) -> EncoderConfig:
    """What a run of a recipe writes as its encoder.json."""
    words = ["mae-kit", "pretrain", "--config", name, "--data.shards", "x", "--run", "y"]
    if name.startswith("beit"):
        words += ["--objective.tokenizer", str(save_tokenizer(folder.parent))]
    with torch.device("meta"):
        asked = understood(words)
    objective, data = asked["objective"], asked["data"]
    encoder, kind = objective.encoder, type(objective).__name__.lower()
    return EncoderConfig(
        encoder.name, encoder.model_args, data.mean, data.std, kind, 1, image_size=list(encoder.image_size)
    )


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("s3://bucket/dir/train-*.tar", "s3://bucket/dir/val-*.tar"),
        ("/trained/train-{000..003}.tar", "/trained/val-{000..003}.tar"),
        ("train-*.tar", "val-*.tar"),
        ("photos/*.tar", "DIR/val-*.tar"),
    ],
)
def test_validation_shards_are_beside_those_of_training(run: Path, train: str, val: str) -> None:
    (run / "config.yaml").write_text(f"objective: {{}}\ndata: {{shards: '{train}'}}\n")
    (run / "encoder.json").write_text(json.dumps({"model": "vit_tiny_patch16_224", "model_args": {}}))
    assert understood(commands(run)[0])["data"].val == val


def test_a_run_under_way_is_resumed(run: Path) -> None:
    assert commands(run) == [["mae-kit", "pretrain", "--resume", str(run)]]


def test_a_tokenizer_is_predicted_by_a_beit(run: Path) -> None:
    (run / "config.yaml").write_text("relaxation: {}\ndata: {shards: my photos/train-*.tar}\n")
    assert commands(run) == [["mae-kit", "tokenizer", "--resume", str(run)]]
    (run / "tokenizer.safetensors").touch()
    ((_, verb, *words),) = commands(run)
    at = words.index("--objective.tokenizer")
    assert verb == "pretrain" and words[at + 1] == str(run)
    words[at + 1] = str(save_tokenizer(run))
    assert understood(["mae-kit", verb, *words])["data"].shards == "my photos/train-*.tar"


def test_a_classifier_predicts(run: Path) -> None:
    (run / "result.json").write_text('{"top1": 0.5}')
    (predict,) = commands(run)
    assert understood(predict)["images"] == ["IMAGES"]
