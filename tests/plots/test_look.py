"""The verbs that look inside an encoder: what they tell and draw, and their users' mistakes."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.photo_shards import photo
from support.untrained_run import MEAN, STD

from mae_kit.cli import main as cli
from mae_kit.commands.attention import attention
from mae_kit.commands.features import features, features_figure
from mae_kit.commands.positions import positions
from mae_kit.encoders import BEiTEncoder, ConvNeXtV2, Hiera, Swin, ViT
from mae_kit.errors import UserError
from mae_kit.plots.encoder import Eye
from mae_kit.plots.features import principal_colors
from mae_kit.weights.native import save_encoder
from mae_kit.weights.pretrained import EncoderConfig


def drawn(path: str | Path) -> tuple[int, int]:
    """The size of a picture that has more in it than titles, which are gray."""
    pixels = levels(path)
    height, width, _ = pixels.shape
    colored = pixels[np.ptp(pixels, axis=2) > 20]
    assert len(colored) > 0.1 * width * height and len(np.unique(colored, axis=0)) > 5
    return width, height


def levels(path: str | Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB")).astype(int)


@pytest.mark.slow
def test_attention_of_every_layer_is_told_and_of_one_is_drawn(run: Path, images: Path, tmp_path: Path):
    out = tmp_path / "deep" / "attention.png"
    found = attention(run, images, out, count=2)
    assert (found["images"], found["layer"]) == (2, 2) and found["picture"] == str(out)
    distance = torch.tensor(found["distance"])
    assert distance.shape == (2, 2) and (distance > 0).all() and (distance < 31 * 2**0.5).all()
    last, shown = out.read_bytes(), levels(out)
    assert drawn(out)[1] > 2 * 96
    again = torch.tensor(attention(run, images, out, count=2)["distance"])
    torch.testing.assert_close(again, distance)
    assert np.abs(levels(out) - shown).mean() < 0.01, "a product rounds by where its numbers lie in memory"
    attention(run, images, out, layer=1, count=2)
    first = out.read_bytes()
    assert attention(run, images, out, layer=1, query="class", count=2)["distance"] == found["distance"]
    assert len({first, last, out.read_bytes()}) == 3


@pytest.mark.slow
def test_positions_of_a_fixed_table_are_alike_by_offset(run: Path, tmp_path: Path):
    found = positions(run, tmp_path / "positions.png")
    assert found["grid"] == [4, 4] and drawn(found["picture"])
    assert found["columns_apart"] == pytest.approx(found["rows_apart"]) and len(found["rows_apart"]) == 4
    assert found["rows_apart"][0] == pytest.approx(1) and found["rows_apart"] == sorted(found["rows_apart"])[::-1]


def test_an_image_is_its_own_neighbor_and_its_brighter_copy_the_next(run: Path, images: Path, tmp_path: Path):
    shards = tmp_path / "shards"
    for number in range(12):
        (tmp_path / "photos").mkdir(exist_ok=True)
        photo(number).resize((32, 32)).save(tmp_path / "photos" / f"{number:02d}.png")
    copy = photo(3).resize((32, 32)).point(lambda level: level + 2)
    copy.save(tmp_path / "photos" / "12.png")
    assert cli.main(["shard", str(tmp_path / "photos"), str(shards), "--workers", "1"]) == 0
    found = features(run, tmp_path / "photos" / "03.png", tmp_path / "features.png", neighbors=shards)
    (nearest,) = found["neighbors"]
    assert len(nearest) == 6 and [each["image"] for each in nearest[:2]] == ["000003", "000012"]
    cosines = [each["cosine"] for each in nearest]
    assert cosines[0] == pytest.approx(1) and cosines == sorted(cosines, reverse=True)
    wide, high = drawn(found["picture"])
    assert wide > 7 * high / 2
    assert sum(found["explained"]) <= 1.001 and len(found["explained"]) == 3


@pytest.mark.slow
def test_rectangles_of_one_channel_without_class_token(tmp_path: Path, images: Path):
    folder = tmp_path / "gray"
    folder.mkdir()
    encoder = ViT("vit_tiny_patch16_224", [16, 48], [8, 16], in_chans=1, embed_dim=24, depth=1, num_heads=2)
    tensors = encoder.model.state_dict()
    save_encoder(folder, tensors, EncoderConfig(encoder.name, encoder.model_args, [0.5], [0.2], "mae", 1))
    assert positions(folder, tmp_path / "positions.png")["grid"] == [2, 3]
    assert len(attention(folder, images, tmp_path / "attention.png")["distance"]) == 1
    wide, high = drawn(features(folder, images, tmp_path / "features.png", count=2)["picture"])
    assert wide > 2 * high, "two tiles of 16 x 48 side by side, twice"


@pytest.mark.parametrize(
    ("made", "cells"),
    [
        (lambda: BEiTEncoder(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2), (4, 4)),
        (lambda: Swin("swin_tiny_patch4_window7_224", 32, embed_dim=8, depths=[1, 1], num_heads=[1, 2]), (4, 4)),
        (lambda: ConvNeXtV2("convnextv2_atto", 64, depths=[1, 1, 1, 1], dims=[4, 8, 8, 16]), (2, 2)),
        (lambda: Hiera("hiera_tiny_224", [32, 64], embed_dim=8, num_heads=1, stages=[1, 1, 1, 1]), (2, 4)),
    ],
    ids=["beit", "swin", "convnext", "hiera"],
)
def test_features_of_any_encoder(made: Callable[[], Any], cells: tuple[int, int], tmp_path: Path, images: Path):
    encoder = made()
    config = EncoderConfig(encoder.name, encoder.model_args, MEAN, STD, "x", 1, list(encoder.image_size))
    save_encoder(tmp_path, encoder.model.state_dict(), config)
    eye = Eye(tmp_path)
    pixels, _ = eye.load(images, 4)
    tokens = eye.patch_tokens(pixels)
    assert tokens.shape == (4, cells[0] * cells[1], encoder.dim)
    figure = features_figure(eye, pixels, principal_colors(tokens)[0], None)
    drawn_cells = figure.axes[1].images[0].get_array()
    assert drawn_cells is not None and drawn_cells.shape == (*cells, 3)
    with pytest.raises(UserError, match=f"{encoder.name} is not a plain vision transformer: give the run of one"):
        positions(tmp_path)
    with pytest.raises(UserError, match="is not a plain vision transformer"):
        attention(tmp_path, images)


def test_an_encoder_that_no_objective_trains_is_refused(tmp_path: Path, images: Path):
    encoder = ViT("vit_tiny_patch16_224", 32, 8, embed_dim=24, depth=1, num_heads=2)
    for args, complaint in (({"reg_tokens": 2}, "no encoder is made of a .* with reg_tokens"), ({}, "does not fit")):
        tensors = encoder.model.state_dict() | {"fc_norm.weight": torch.ones(24)}
        save_encoder(tmp_path, tensors, EncoderConfig(encoder.name, encoder.model_args | args, MEAN, STD, "x", 1))
        with pytest.raises(UserError, match=complaint):
            features(tmp_path, images, tmp_path / "features.png")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("attention {images} {images}", "no encoder at .*images"),
        ("attention {run} {run}/nowhere.jpg", "no image in .*nowhere.jpg"),
        ("attention {run} {images} --layer 3", "the encoder has no layer 3: give --layer 1 to 2"),
        ("attention {run} {images} --layer 0", "the encoder has no layer 0"),
        ("attention {run} {images} --query head", "query does not take 'head': give "),
        ("attention {run} {images} --count 0", "count is 0"),
        ("attention {run} {images} --out a.jpg", "--out a.jpg is not a PNG: give --out a.png"),
        ("positions {run} --out a.jpg", "--out a.jpg is not a PNG"),
        ("features {run} {images} --out a.jpg", "--out a.jpg is not a PNG"),
        ("features {run} {images} --neighbors {run}", "no shards|holds no|\\.tar"),
        ("bench {run} --batch-size 0", "batch_size is 0"),
    ],
)
def test_mistakes_are_told_in_one_line(
    run: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    complaint: str,
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words.format(run=run, images=images).split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(complaint, line), line
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
