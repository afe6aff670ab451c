"""`mae-kit inspect`: what it plots of which model, its values, and the user's mistakes."""
# Also tests parallel/device.py.

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.errors import raises
from support.photo_shards import photo
from support.untrained_run import MEAN, STD, make_mae, write_run

from mae_kit.cli import main as cli
from mae_kit.commands import inspect as command
from mae_kit.commands.inspect import inspect
from mae_kit.encoders import BEiTEncoder, ConvNeXtV2, Hiera, Swin, ViT
from mae_kit.objectives import MAE
from mae_kit.plots.encoder import FrozenEncoder
from mae_kit.plots.features import features_figure, principal_colors
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import save_encoder

PLOTS = ["attention", "features", "losses", "positions", "ratios", "reconstructions"]


@pytest.fixture
def trained_run(tmp_path: Path, photos: Path) -> Path:
    """An own run that names its images."""
    folder = tmp_path / "run"
    folder.mkdir()
    write_run(folder)
    (folder / "config.yaml").write_text(f"data: {{path: '{photos}/train-*.tar'}}\n")
    return folder


def encoder_run(folder: Path, encoder: Any) -> Path:
    """A run of which there is the encoder only."""
    folder.mkdir(exist_ok=True)
    statistics = (MEAN, STD) if encoder.channels == 3 else ([0.5], [0.2])
    config = ModelConfig(encoder.name, encoder.model_args, *statistics, "x", 1, encoder.image_size)
    save_encoder(folder, encoder.model.state_dict(), config)
    return folder


def drawn(path: str | Path) -> tuple[int, int]:
    """The size of an image that contains more than titles, which are gray."""
    with Image.open(path) as opened:
        pixels = np.asarray(opened.convert("RGB")).astype(int)
    height, width, _ = pixels.shape
    colored = pixels[np.ptp(pixels, axis=2) > 20]
    assert len(colored) > 0.1 * width * height and len(np.unique(colored, axis=0)) > 5
    return width, height


@pytest.mark.slow
def test_all_plots_are_drawn_and_shown_in_the_report(trained_run: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["inspect", str(trained_run), "--count", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(found) == sorted([*PLOTS, "next", "report"])
    assert sorted(path.name for path in (trained_run / "inside").iterdir()) == [f"{name}.png" for name in PLOTS]
    page = (trained_run / "report.html").read_text()
    assert "<h2>Inside the model</h2>" in page and page.count("<figure class=paper>") == len(PLOTS)
    assert all(drawn(found[name]["plot"]) for name in PLOTS)
    ratios, usual = found["ratios"]["loss"], found["reconstructions"]["loss"]
    assert list(ratios) == ["10%", "25%", "50%", "75%", "85%", "90%"], "of 16 patches 95% would be all"
    assert ratios["75%"] == pytest.approx(usual) and found["losses"]["loss"] == pytest.approx(usual, rel=0.1)


@pytest.mark.parametrize("plot", ["attention", "features", "losses", "ratios", "reconstructions"])
def test_everything_is_computed_on_the_device(
    plot: Any, trained_run: Path, images: Path, monkeypatch: pytest.MonkeyPatch
):
    """On one without memory: what comes of it has no value, and what stayed behind would be refused."""
    monkeypatch.setattr("mae_kit.plots.encoder.frozen_device", lambda: "meta")
    with pytest.raises((RuntimeError, NotImplementedError), match=r"called on meta|out of meta tensor"):
        inspect(trained_run, images, plot, count=2)


def test_attention_distances_and_the_layer_that_is_drawn(trained_run: Path, images: Path):
    last = inspect(trained_run, images, "attention", count=2)["attention"]
    distance = torch.tensor(last["distance"])
    assert last["layer"] == 2 and distance.shape == (2, 2) and (distance > 0).all() and (distance < 31 * 2**0.5).all()
    drawn_last = Path(last["plot"]).read_bytes()
    first = inspect(trained_run, images, ["attention"], count=2, layer=1)["attention"]
    torch.testing.assert_close(torch.tensor(first["distance"]), distance)
    assert Path(first["plot"]).read_bytes() != drawn_last


def test_a_map_is_drawn_where_it_is_asked_for(trained_run: Path, photos: Path):
    found = inspect(trained_run, None, "map")["map"]
    assert len(found["images"]) == len(found["places"]) == 96 and Path(found["plot"]).is_file()
    assert "<h3>Map</h3>" in (trained_run / "report.html").read_text()


def test_fixed_position_embeddings_are_less_similar_at_larger_distance(trained_run: Path, images: Path):
    found = inspect(trained_run, images, "positions")["positions"]
    assert found["grid"] == [4, 4] and found["columns_apart"] == pytest.approx(found["rows_apart"])
    assert found["rows_apart"][0] == pytest.approx(1) and found["rows_apart"] == sorted(found["rows_apart"])[::-1]


def test_the_nearest_neighbor_of_an_image_is_itself_and_then_its_brighter_copy(trained_run: Path, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    for number in range(12):
        photo(number).resize((32, 32)).save(tmp_path / "photos" / f"{number:02d}.png")
    copy = photo(3).resize((32, 32)).point(lambda level: level + 2)
    copy.save(tmp_path / "photos" / "12.png")
    shards = tmp_path / "shards"
    assert cli.main(["shard", str(tmp_path / "photos"), str(shards), "--workers", "1"]) == 0
    found = inspect(trained_run, tmp_path / "photos" / "03.png", "features", neighbors=shards)["features"]
    (nearest,) = found["neighbors"]
    assert len(nearest) == 6 and [each["image"] for each in nearest[:2]] == ["03.png", "12.png"]
    cosines = [each["cosine"] for each in nearest]
    assert cosines[0] == pytest.approx(1) and cosines == sorted(cosines, reverse=True)
    wide, high = drawn(found["plot"])
    assert wide > 7 * high / 2 and sum(found["explained"]) <= 1.001 and len(found["explained"]) == 3


def test_rectangles_of_one_channel_without_model(tmp_path: Path, images: Path):
    encoder = ViT("vit_tiny_patch16_224", [16, 48], [8, 16], in_chans=1, embed_dim=24, depth=1, num_heads=2)
    found = inspect(encoder_run(tmp_path / "gray", encoder), images, count=2)
    assert sorted(found) == ["attention", "features", "next", "positions", "report"]
    assert found["positions"]["grid"] == [2, 3] and len(found["attention"]["distance"]) == 1
    wide, high = drawn(found["features"]["plot"])
    assert wide > 2 * high, "two tiles of 16 x 48 side by side, twice"


@pytest.mark.parametrize(
    ("make", "cells"),
    [
        (lambda: BEiTEncoder(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2), (4, 4)),
        (lambda: Swin("swin_tiny_patch4_window7_224", 32, embed_dim=8, depths=[1, 1], num_heads=[1, 2]), (4, 4)),
        (lambda: ConvNeXtV2("convnextv2_atto", 64, depths=[1, 1, 1, 1], dims=[4, 8, 8, 16]), (2, 2)),
        (lambda: Hiera("hiera_tiny_224", [32, 64], embed_dim=8, num_heads=1, stages=[1, 1, 1, 1]), (2, 4)),
    ],
    ids=["beit", "swin", "convnext", "hiera"],
)
def test_features_of_any_encoder_and_what_it_lacks(
    make: Callable[[], Any], cells: tuple[int, int], tmp_path: Path, images: Path, caplog: pytest.LogCaptureFixture
):
    run = encoder_run(tmp_path, encoder := make())
    frozen = FrozenEncoder(run)
    pixels, _ = frozen.load(images, 4)
    tokens = frozen.patch_tokens(pixels)
    assert tokens.shape == (4, cells[0] * cells[1], encoder.dim)
    figure = features_figure(frozen, pixels, principal_colors(tokens)[0], None)
    shown = figure.axes[1].images[0].get_array()
    assert shown is not None and shown.shape == (*cells, 3)
    assert sorted(inspect(run, images, count=1)) == ["features", "next", "report"]
    lacking = [line.split(":")[0].removeprefix("no plot of ") for line in caplog.messages if line.startswith("no plot")]
    assert sorted(lacking) == sorted(set(PLOTS) - {"features"})
    for name in lacking:
        with raises("inspect.show"):
            inspect(run, images, [name])  # type: ignore[list-item]


class Own(MAE):
    """A user's objective."""


def test_an_own_objective_has_all_plots_of_its_base(trained_run: Path):
    frozen = FrozenEncoder(trained_run)
    own = Own(make_mae().encoder, decoder_dim=16, decoder_depth=1, decoder_heads=2)
    assert sorted(command._choose(None, command._missing(frozen, own))) == PLOTS


def test_an_encoder_that_no_objective_trains_is_refused(tmp_path: Path, images: Path):
    encoder = ViT("vit_tiny_patch16_224", 32, 8, embed_dim=24, depth=1, num_heads=2)
    for args in ({"reg_tokens": 2}, {}):
        tensors = encoder.model.state_dict() | {"fc_norm.weight": torch.ones(24)}
        save_encoder(tmp_path, tensors, ModelConfig(encoder.name, encoder.model_args | args, MEAN, STD, "x", 1))
        with pytest.raises(command.UserError):
            inspect(tmp_path, images, "features")


@pytest.mark.parametrize(
    ("options", "key"), [({"layer": 3}, "inspect.layer"), ({"layer": 0}, "inspect.layer"), ({"count": 0}, "count")]
)
def test_numbers_out_of_range(run: Path, images: Path, options: dict[str, Any], key: str):
    with raises(key):
        inspect(run, images, "attention", **options)


@pytest.mark.parametrize("config", ["data: {train: a.tar}", None])
def test_a_run_that_does_not_name_its_images_asks_for_them(trained_run: Path, config: str | None):
    (trained_run / "config.yaml").unlink()
    if config:
        (trained_run / "config.yaml").write_text(config)
    with raises("inspect.images"):
        inspect(trained_run)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("path", ["\u00e9t\u00e9", "https://images.example/train-*.tar"])
def test_the_images_of_a_run_may_have_any_name_or_url(tmp_path: Path, path: str):
    (tmp_path / "config.yaml").write_text(f"data: {{path: '{path}'}}\n", encoding="utf-8")
    assert command._trained_on(tmp_path) == path
