"""The commands that a page prints are the command line's own."""

import json
import re
import shlex
from html import unescape
from pathlib import Path

import pytest
from tiny_models import save_tokenizer

from mae_kit.cli import VERBS, load
from mae_kit.reporting.commands import next_steps
from mae_kit.reporting.folder import read_folder
from mae_kit.signature import parse


def commands(run: Path) -> list[list[str]]:
    """The words of each command on the page."""
    blocks = re.findall("<pre>(.*?)</pre>", next_steps(read_folder(run)))
    return [shlex.split(unescape(re.sub("<.*?>", "", block))) for block in blocks]


def understood(words: list[str]) -> dict:
    program, name, *rest = words
    assert program == "mae-kit"
    return parse(load(VERBS[name]), "mae-kit", rest, VERBS[name].recipes)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "a run"
    folder.mkdir()
    (folder / "config.yaml").write_text("objective: {}\ndata: {shards: my photos/train-*.tar, flip: false}\n")
    return folder


@pytest.mark.parametrize(
    ("model", "arguments", "size", "named"),
    [
        ("vit_tiny_patch16_224", {"img_size": 64, "patch_size": 8}, 64, None),
        ("vit_small_patch16_224", {"img_size": [64, 48]}, [64, 48], None),
        ("vit_base_patch16_224", {}, 224, "vit_base_patch16_224"),
        ("beit_base_patch16_224", {"global_pool": "token"}, 224, "beit_base_patch16_224"),
        ("beit_base_patch16_224", {"img_size": 64, "embed_dim": 192}, 64, None),
    ],
)
def test_an_encoder_of_any_kind_is_trained_on_at_its_size(
    run: Path, model: str, arguments: dict, size: int | list[int], named: str | None
) -> None:
    (run / "encoder.json").write_text(json.dumps({"model": model, "model_args": arguments}))
    finetune, reconstruct, inspect = commands(run)
    meant = understood(finetune)
    assert meant["encoder"] == str(run)
    assert meant["run"] == run.with_name("a run-classifier")
    assert (meant["data"].train, meant["data"].val) == ("my photos/train-*.tar", "my photos/val-*.tar")
    assert meant["data"].image_size == size
    assert not meant["augmentation"].flip
    assert (meant["model"] and meant["model"].name) == named
    assert understood(reconstruct)["run"] == understood(inspect)["run"] == run


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
