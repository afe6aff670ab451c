"""The record of a model travels with its weights: every kind of model through every format, held to its predictions."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import timm
import torch
from support.photo_shards import photo
from support.tiny_models import MEAN, STD, shaken
from torch import Tensor

from mae_kit.commands.export import export
from mae_kit.commands.import_ import import_
from mae_kit.commands.predict import predict
from mae_kit.data.loading.images import read_images
from mae_kit.data.scale import Scale
from mae_kit.weights.config import ModelConfig, parse_config
from mae_kit.weights.native import load_classifier, save_classifier
from mae_kit.weights.onnx import METADATA, RECORD

VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("vit_base_patch16_224", VIT | {"global_pool": "avg"}),
    "ViT, class token": ("vit_base_patch16_224", VIT),
    "ResNet": ("test_resnet", {}),
    "ConvNeXt V2": ("convnextv2_base", {"depths": [1, 1, 2, 1], "dims": [8, 16, 16, 24]}),
    "Hiera": ("hiera_tiny_224", {"img_size": 32, "embed_dim": 16, "num_heads": 1, "stages": [1, 1, 1, 1]}),
    "Swin": (
        "swin_base_patch4_window7_224",
        {"img_size": 32, "window_size": 4, "embed_dim": 12, "depths": [2, 1], "num_heads": [1, 2]},
    ),
}
OF_ALL = [(model, "timm") for model in MODELS]
OF_VITS = [(model, format) for model in ("ViT", "ViT, class token") for format in ("original", "vit")]
GRAPHS = [(model, format) for model in MODELS for format in ("onnx", "pt2")]


def trained(folder: Path, model: str, multi_label: bool) -> Path:
    """A run of 32 x 32 pixels, with a crop that is neither timm's nor the whole, on images of 12 bits."""
    name, args = MODELS[model]
    how: dict[str, Any] = {"image_size": (32, 32), "crop_pct": 0.8, "classes": ["cat", "dog", "eel"]}
    how["scale"] = Scale("uint16", "given", [0, 0, 100], [4095, 4095, 4095], [2000, 2000, 2000], 65535)
    folder.mkdir()
    classifier = shaken(timm.create_model(name, num_classes=3, **args))
    save_classifier(folder, classifier, ModelConfig(name, args, MEAN, STD, multi_label=multi_label, **how))
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        deep = np.asarray(photo(number)).astype(np.uint16) << 4
        tifffile.imwrite(tmp_path / "photos" / f"{number}.tif", deep, photometric="rgb")
    return tmp_path / "photos"


def predictions(run: Path, photos: Path) -> list[dict[str, float]]:
    return [dict(sorted(row["classes"].items())) for row in predict(run, [photos])["predictions"]]


@pytest.mark.parametrize("multi_label", [False, True], ids=["softmax", "sigmoid"])
@pytest.mark.parametrize(("model", "format"), OF_ALL + OF_VITS)
def test_predictions_stay_through_export_and_import(
    tmp_path: Path, photos: Path, model: str, format: Any, multi_label: bool
):
    run = trained(tmp_path / "run", model, multi_label)
    export(run, tmp_path / "out", format=format)
    import_(tmp_path / "out/model.pth" if format == "original" else tmp_path / "out", tmp_path / "again")
    before, after = predictions(run, photos), predictions(tmp_path / "again", photos)
    assert [*before[0]] == ["cat", "dog", "eel"] and before[0] != before[1]
    for one, other in zip(before, after, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def carried(folder: Path, format: str) -> tuple[dict[str, Any], Any]:
    """The record inside a graph's file, and the graph."""
    if format == "pt2":
        files = {RECORD: ""}
        graph: Any = torch.export.load(folder / "model.pt2", extra_files=files).module()
        return json.loads(files[RECORD]), graph
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(folder / "model.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    return json.loads(metadata[METADATA]), lambda images: torch.from_numpy(
        session.run(None, {"images": images.numpy()})[0]
    )


@pytest.mark.long
@pytest.mark.parametrize("multi_label", [False, True], ids=["softmax", "sigmoid"])
@pytest.mark.parametrize(("model", "format"), GRAPHS)
def test_a_graph_carries_what_its_predictions_need(
    tmp_path: Path, photos: Path, model: str, format: Any, multi_label: bool
):
    if format == "onnx":
        pytest.importorskip("onnxscript")
    run = trained(tmp_path / "run", model, multi_label)
    export(run, tmp_path / "out", format=format)
    record, graph = carried(tmp_path / "out", format)
    assert record == json.loads((tmp_path / "out" / RECORD).read_text())
    size = tuple(record["image_size"])
    how = (record["crop_pct"], record["crop_mode"], record["interpolation"])
    pixels = torch.stack([each for each, _ in read_images(photos, size, 3, *how, Scale.of(record["scale"]))])
    mean, std = (torch.tensor(record[key])[:, None, None] for key in ("mean", "std"))
    logits: Tensor = graph((pixels / 255 - mean) / std)
    likely = logits.sigmoid() if record["activation"] == "sigmoid" else logits.softmax(dim=1)
    for row, expected in zip(likely.tolist(), predictions(run, photos), strict=True):
        assert dict(zip(record["classes"], row, strict=True)) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("change", [{"crop_mode": "squash"}, {"interpolation": "bilinear"}], ids=str)
def test_how_images_are_resized_is_asked(tmp_path: Path, photos: Path, change: dict[str, str]):
    """As timm's own transforms do it with the folder."""
    run = trained(tmp_path / "run", "ViT", False)
    export(run, tmp_path / "out")
    path = tmp_path / "out/config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"pretrained_cfg": content["pretrained_cfg"] | change}))
    import_(tmp_path / "out", tmp_path / "again")
    config = load_classifier(tmp_path / "again").config
    assert getattr(config, next(iter(change))) == next(iter(change.values()))
    assert predictions(tmp_path / "again", photos) != predictions(run, photos)


@pytest.mark.parametrize("change", [{"crop_pct": 0}, {"mean": [0.5]}, {"model": 3}, {"colors": 1}], ids=str)
def test_a_record_that_makes_no_sense(tmp_path: Path, change: dict[str, Any]):
    run = trained(tmp_path / "run", "ViT", False)
    loaded = load_classifier(run)
    with pytest.raises((ValueError, KeyError, TypeError)):
        parse_config(asdict(loaded.config) | change)
