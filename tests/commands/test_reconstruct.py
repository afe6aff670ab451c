"""`mae-kit reconstruct`: images of any size; mask, ratio and seed; and the user's mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.errors import raises
from support.untrained_run import MEAN, STD, make_mae

from mae_kit.commands.reconstruct import reconstruct
from mae_kit.data.transforms.augment import Normalize
from mae_kit.plots.reconstructions import draw_reconstructions


def test_a_picture_of_images_of_any_size(run: Path, images: Path, tmp_path: Path):
    result = reconstruct(run, images, tmp_path / "deep" / "grid.png")
    assert result["images"] == 4 and 0 < result["loss"] < 10 and result["plot"] == str(tmp_path / "deep" / "grid.png")
    with Image.open(tmp_path / "deep" / "grid.png") as opened:
        assert opened.mode == "RGB" and opened.width > 4 * 96 and opened.height > 4 * 96


def test_from_shards(run: Path, photos: Path, tmp_path: Path):
    assert reconstruct(run, photos / "val-0.tar", tmp_path / "grid.png", count=3)["images"] == 3


def drawn(run: Path, images: Path, out: Path, **choices: Any) -> bytes:
    reconstruct(run, images, out, **choices)
    return out.read_bytes()


def test_seed_share_and_kind_choose_what_is_hidden(run: Path, images: Path, tmp_path: Path):
    out = tmp_path / "grid.png"
    usual = drawn(run, images, out)
    assert drawn(run, images, out) == usual == drawn(run, images, out, seed=0, mask_ratio=0.75, mask="random")
    others: list[dict[str, Any]] = [{"seed": 1}, {"mask_ratio": 0.5}, {"mask": "block"}, {"mask": "grid"}]
    assert len({usual, *(drawn(run, images, out, **choice) for choice in others)}) == 5


def test_the_picture_shows_the_prediction_in_true_pixels():
    """With plain pixels as the target, a decoder that always says 0 predicts the mean that was normalized with."""
    mae = make_mae(norm_pix_loss=False)
    torch.nn.init.zeros_(mae.decoder.pred.weight)
    torch.nn.init.zeros_(mae.decoder.pred.bias)
    images = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    grid = draw_reconstructions(mae, Normalize(MEAN, STD), images, torch.tensor([1]))
    colors = {tuple(color) for color in grid.reshape(-1, 3).tolist()}
    assert (102, 128, 153) in colors, "the mean, in 8 bits"


def test_the_model_and_what_it_sees_are_sent_to_the_device(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """To one without memory: what comes of it has no value, and what stayed behind would be refused."""
    monkeypatch.setattr("mae_kit.commands.reconstruct.frozen_device", lambda: "meta")
    with pytest.raises(RuntimeError, match="cannot be called on meta"):
        reconstruct(run, images, tmp_path / "grid.png")


@pytest.mark.parametrize(
    ("run_file", "options", "keys"),
    [
        ("encoder.safetensors", {}, ["model.kind"]),
        ("nowhere", {}, ["model.missing"]),
        ("", {"images": "nowhere.jpg"}, ["images.missing"]),
        ("", {"out": Path("grid.jpg")}, ["out"]),
        ("", {"mask": "grid", "mask_ratio": 0.5}, ["objective.mask"]),
        ("", {"mask_ratio": 1.0}, ["objective.mask_ratio"]),
        ("", {"count": 0}, ["count"]),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(
    run: Path, images: Path, tmp_path: Path, run_file: str, options: dict[str, Any], keys: list[str]
):
    chosen: dict[str, Any] = {"images": images, "out": tmp_path / "grid.png"} | options
    with raises(*keys):
        reconstruct(run / run_file if run_file else run, **chosen)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.slow
def test_a_real_run_by_the_command_line(programs: Any, trained: Path, photos: Path, tmp_path: Path):
    words = ["reconstruct", trained, photos / "val-0.tar", "--out", tmp_path / "grid.png", "--count", "4", "--json"]
    ended = programs.run(*words)
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["loss"] < 1.3 and (tmp_path / "grid.png").exists()
