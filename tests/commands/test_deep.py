"""Images of more than 8 bits and of any number of bands: packed, pretrained, reconstructed, fine-tuned, predicted,
scored, searched, exported.
"""
# Also tests data/packing/deep.py.

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from support.errors import raises

import mae_kit as mk
from mae_kit.commands.shard import shard
from mae_kit.data.index.open import open_index
from mae_kit.data.index.statistics import channel_statistics
from mae_kit.data.loading.loader import EvaluationBatches
from mae_kit.data.packing.stats import summary
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import save_encoder

BANDS = 5
PRETRAIN = """
objective:
  class_path: mae_kit.MAE
  init_args:
    encoder:
      class_path: mae_kit.ViT
      init_args:
        {name: vit_tiny_patch16_224, img_size: 16, patch_size: 4, in_chans: 5, embed_dim: 48, depth: 2, num_heads: 2}
    decoder_dim: 32
    decoder_depth: 1
    decoder_heads: 2
data: {batch_size: 16}
optimization: {epochs: 6, base_learning_rate: 1.0e-2}
intervals: {log_every_n_steps: 5, checkpoint_every_n_steps: 50, eval_every_n_steps: 10}
machine: {num_workers: 0, precision: fp32}
"""
FINETUNE = """
model: {name: vit_tiny_patch16_224, args: {patch_size: 4, embed_dim: 48, depth: 2, num_heads: 2}}
data: {batch_size: 16, image_size: 16, crop_scale: [0.5, 1.0]}
augmentation: {flip: true, randaugment: null, mixup: 0.0, cutmix: 0.0, erasing: 0.25}
optimization: {epochs: 12, learning_rate: 3.0e-3}
intervals: {log_every_n_steps: 5, checkpoint_every_n_steps: 50, eval_every_n_steps: 100}
machine: {num_workers: 0, precision: fp32}
"""
HOLE = {"uint16": 0, "int16": -9999, "float32": np.nan}


def scene(kind: str, label: int, number: int) -> np.ndarray:
    """[20 24 5]: bands of different means, the fourth higher for label 1, and a corner without data."""
    noise = np.random.default_rng(number).normal(0, 50, (20, 24, BANDS))
    values = noise + np.arange(1, BANDS + 1) * 1000 + np.array([0, 0, 0, 200 * label, 0])
    values[:3, :4] = HOLE[kind]
    return values.astype(kind)


def write(file: Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(file, values, photometric="minisblack", planarconfig="contig")


@pytest.fixture(scope="module", params=["uint16", "float32"])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `in`, class folders of TIFFs, and their shards `out`; not to be changed."""
    folder, kind = tmp_path_factory.mktemp("scenes"), request.param
    for number in range(80):
        write(folder / f"in/{'ab'[number % 2]}/{number}.tif", scene(kind, number % 2, number))
    shard(str(folder / "in"), folder / "out", val_fraction=0.3, workers=1, nodata=HOLE[kind])
    return folder


@pytest.fixture(scope="module")
def trained(packed: Path) -> Path:
    """The same folder with the runs `mae` and `classifier`."""
    (packed / "mae.yaml").write_text(PRETRAIN)
    (packed / "vit.yaml").write_text(FINETUNE)
    mk.pretrain(str(packed / "mae.yaml"), data=str(packed / "out"), run=packed / "mae")
    how = {"encoder": str(packed / "mae"), "run": packed / "classifier"}
    mk.finetune(str(packed / "vit.yaml"), data=str(packed / "out"), **how)
    return packed


def test_shards_hold_the_values_of_the_files(packed: Path):
    stats = json.loads((packed / "out/stats.json").read_text())
    index = open_index(packed / "out")
    kind = stats["scale"]["kind"]
    for row in range(len(index)):
        found = np.load(io.BytesIO(index.read(row)))
        np.testing.assert_array_equal(found, tifffile.imread(packed / "in" / index.file(row)))
        assert found.dtype == kind
    assert not index.problems and stats["bands"]["nodata"] == pytest.approx([12 / 480] * BANDS)
    np.testing.assert_allclose(stats["bands"]["mean"], [1000, 2000, 3000, 4100, 5000], atol=30)
    assert (stats["scale"]["method"], stats["scale"]["nodata"]) == ("percentile", 0 if kind == "uint16" else None)


def test_the_model_of_more_than_8_bits_says_how_its_input_is_made(trained: Path):
    scale = json.loads((trained / "out/stats.json").read_text())["scale"]
    assert json.loads((trained / "mae/encoder.json").read_text())["scale"] == scale
    assert mk.load_encoder(trained / "mae").pretrained_cfg.scale == open_index(trained / "out").scale
    assert mk.load_classifier(trained / "classifier").config.scale == open_index(trained / "out").scale


def test_what_the_bands_show_is_learned(trained: Path):
    result = json.loads((trained / "classifier/result.json").read_text())
    assert result["top1"] > 0.9


def test_predictions_on_files_are_those_on_shards(trained: Path, tmp_path: Path):
    """`predict` reads a GeoTIFF as the classifier was trained, without its shards."""
    found = mk.predict(trained / "classifier", [trained / "in"])["predictions"]
    of_shards = mk.predict(trained / "classifier", [trained / "out"])["predictions"]
    first, second = ({Path(each["image"]).name: each["classes"] for each in some} for some in (found, of_shards))
    assert first.keys() == second.keys()
    for name, classes in first.items():
        assert classes == pytest.approx(second[name], abs=1e-6)
    right = [("ab"[int(Path(name).stem) % 2] == max(classes, key=classes.get)) for name, classes in first.items()]  # type: ignore[arg-type]
    assert np.mean(right) > 0.9


def test_photos_are_refused_by_a_model_of_more_than_8_bits(trained: Path, tmp_path: Path):
    Image.new("RGB", (20, 20)).save(tmp_path / "photo.png")
    with raises("images.none"):
        mk.predict(trained / "classifier", [tmp_path])


def test_reconstructions(trained: Path, tmp_path: Path):
    found = mk.reconstruct(trained / "mae", trained / "in/a", tmp_path / "grid.png", count=3, rgb="4,2,1")
    other = mk.reconstruct(trained / "mae", trained / "in/a", tmp_path / "other.png", count=3)
    assert found["loss"] == other["loss"] < 1.5
    assert (tmp_path / "grid.png").read_bytes() != (tmp_path / "other.png").read_bytes()
    with raises("rgb"):
        mk.reconstruct(trained / "mae", trained / "in/a", tmp_path / "grid.png", rgb="6,1,1")


def test_everything_else_takes_them(trained: Path, tmp_path: Path):
    shards = str(trained / "out")
    scores = mk.evaluate(trained / "mae", data=shards, methods="knn")["scores"]
    assert scores[0]["top1"] > 0.8
    assert mk.dedup(trained / "out", workers=1)["samples"] == 80
    found = mk.embed(trained / "mae", data=shards, out=tmp_path / "features.npy")
    assert isinstance(found, dict) and found["images"] == 80 and np.isfinite(np.load(tmp_path / "features.npy")).all()
    exported = mk.export(trained / "classifier", tmp_path / "timm", format="timm")
    assert json.loads((tmp_path / "timm/config.json").read_text())["scale"]["kind"]
    assert exported
    assert mk.evaluate(trained / "classifier", data=shards)["scores"][0]["top1"] > 0.9


def test_loaders_give_floats_of_the_range_of_8_bits(packed: Path):
    index = open_index(packed / "out")
    images = EvaluationBatches(index, np.arange(8), 8, (16, 16), BANDS)[0].images
    assert images.dtype == torch.float32 and images.shape == (8, BANDS, 16, 16)
    assert images.min() >= 0 and images.max() <= 255 and (images != images.round()).any()
    assert 110 < images.mean() < 145  # percentiles to 0..255: neither dark nor burnt


def test_a_shorter_side(packed: Path, tmp_path: Path):
    stats = shard(str(packed / "in"), tmp_path / "small", workers=1, resize=10, nodata=0)
    index = open_index(tmp_path / "small")
    assert (index.height == 10).all() and (index.width == 12).all()
    np.testing.assert_allclose(stats["bands"]["mean"], [1000, 2000, 3000, 4100, 5000], atol=60)


def test_the_summary_names_bands(packed: Path):
    lines = summary(packed / "out", json.loads((packed / "out/stats.json").read_text()))
    assert len([line for line in lines if re.match(r"band \d of .* becomes 0 and .* 2.5% without data", line)]) == BANDS


def hidden_in_low_bits(label: int, number: int) -> np.ndarray:
    """[16 16] of 12 bits: stripes of less than half a level of 8 bits; in every fifth image a pixel without measure."""
    values = np.full((16, 16), 62 * 4095 / 255)
    stripes = 6.0 * (-1) ** ((np.arange(16) + number) // 2)
    values += stripes[:, None] if label else stripes[None]
    if number % 5 == 0:
        values[number % 16, 3] = 4095
    return np.rint(values).astype(np.uint16)


def pack_low_bits(folder: Path, bits: int) -> Path:
    """Shards of 140 images for training and 60 for validation, of two classes."""
    for number in range(200):
        values = hidden_in_low_bits(number % 2, number // 2)
        file = folder / f"in/{'train' if number < 140 else 'val'}/{'ab'[number % 2]}/{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values if bits == 12 else np.rint(values * (255 / 4095)).astype(np.uint8)).save(file)
    shard(str(folder / "in"), folder / "out", workers=1, channels=None if bits == 12 else 1)
    return folder / "out"


@pytest.mark.parametrize("bits", [8, 12])
def test_what_lies_in_the_low_bits_is_seen_in_all_bits_alone(bits: int, tmp_path: Path):
    """The nearest neighbors by the features of an encoder that is not trained."""
    index = open_index(pack_low_bits(tmp_path, bits))
    mean, std = channel_statistics(index)  # type: ignore[misc]
    sizes: dict[str, Any] = {"img_size": 16, "patch_size": 4, "in_chans": 1, "embed_dim": 48, "depth": 2}
    vit = mk.ViT("vit_tiny_patch16_224", **sizes, num_heads=2)
    record = ModelConfig(vit.name, vit.model_args, mean, std, image_size=(16, 16), scale=index.scale)
    save_encoder(tmp_path, vit.model.state_dict(), record)
    (score, *_) = mk.evaluate(tmp_path, data=str(tmp_path / "out"), methods="knn", workers=1)["scores"]
    assert score["top1"] > 0.9 if bits == 12 else score["top1"] < 0.7


@pytest.mark.long
@pytest.mark.parametrize("bits", [8, 12])
def test_what_lies_in_the_low_bits_is_learned_from_all_bits_alone(bits: int, tmp_path: Path):
    shards = pack_low_bits(tmp_path, bits)
    (tmp_path / "vit.yaml").write_text(FINETUNE.replace("erasing: 0.25", "erasing: 0.0"))
    how: dict[str, Any] = {"encoder": "none", "run": tmp_path / "run", "seed": 1}
    result = mk.finetune(str(tmp_path / "vit.yaml"), data=str(shards), **how)
    assert result["top1"] > 0.9 if bits == 12 else result["top1"] < 0.7
