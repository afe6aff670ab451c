"""Graphs that run without their code, at other batches and image sizes than they were made with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.tiny_models import ARGS, MEAN, STD, save_run, shaken, tiny_classifier, tiny_mae

from mae_kit.commands.export import export
from mae_kit.weights.adapt import resized
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import save_classifier, to_objective
from mae_kit.weights.onnx import AnySize, export_graph, graph_of
from mae_kit.weights.pretrained import Pretrained, build_timm
from mae_kit.weights.recognize import read_pretrained

pytestmark = pytest.mark.long
SIZES = [(1, 32, 32), (3, 40, 64), (2, 16, 32)]


def expected(run: Path, images: torch.Tensor) -> torch.Tensor:
    """By plain timm, at the size of the images."""
    weights = resized(read_pretrained(run), (images.shape[2], images.shape[3]))
    with torch.no_grad():
        return build_timm(weights).forward_features(images)


def test_torch_export_takes_any_batch_and_size(tmp_path: Path):
    run = save_run(tmp_path / "run", tiny_mae())
    export(run, tmp_path / "out", format="pt2")
    graph = torch.export.load(tmp_path / "out" / "model.pt2").module()
    for b, h, w in SIZES:
        images = torch.randn(b, 3, h, w)
        torch.testing.assert_close(graph(images), expected(run, images), rtol=1e-5, atol=1e-5)


def test_onnx_takes_any_batch_and_size(tmp_path: Path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    run = save_run(tmp_path / "run", tiny_mae())
    export(run, tmp_path / "out", format="onnx")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.onnx", "model.json"}
    session = runtime.InferenceSession(tmp_path / "out" / "model.onnx")
    for b, h, w in SIZES:
        images = torch.randn(b, 3, h, w)
        (features,) = session.run(["features"], {"images": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(features), expected(run, images), rtol=1e-4, atol=1e-4)


def test_the_metadata_of_an_onnx_file_name_classes_and_statistics(tmp_path: Path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    config = ModelConfig("vit_base_patch16_224", {**ARGS, "global_pool": "avg"}, MEAN, STD, classes=list("abcde"))
    save_classifier(tmp_path, tiny_classifier(), replace(config, image_size=(32, 32)))
    export(tmp_path, tmp_path / "out", format="onnx")
    session = runtime.InferenceSession(tmp_path / "out" / "model.onnx")
    known = json.loads(session.get_modelmeta().custom_metadata_map["mae_kit"])
    assert (known["classes"], known["mean"], known["std"]) == (list("abcde"), MEAN, STD)
    assert (known["activation"], known["image_size"]) == ("softmax", [32, 32])


@pytest.mark.parametrize("name", ["test_convnext", "vit_base_patch16_224"])
def test_classifiers_of_one_size_and_of_any(name: str):
    plain = name.startswith("vit")
    model = tiny_classifier() if plain else shaken(timm.create_model(name, num_classes=5))
    args = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "global_pool": "avg"}
    config = ModelConfig(name, args if plain else {}, MEAN, STD, classes=list("abcde"))
    graph = export_graph(graph_of(Pretrained("", config, model.state_dict()))).module()
    size = 32 if plain else model.pretrained_cfg["input_size"][1]
    images = torch.randn(3, 3, size, size)
    torch.testing.assert_close(graph(images), model(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["vit_small_patch14_reg4_dinov2", "vit_base_patch16_clip_224", "test_vit"])
def test_prefix_tokens_of_every_kind(name: str):
    """Class token and registers, with and without rows in the position table."""
    args: dict[str, Any] = {"img_size": 56 if "14" in name else 64, "depth": 1}
    model = shaken(timm.create_model(name, num_classes=0, **args))
    images = torch.randn(2, 3, args["img_size"], args["img_size"])
    torch.testing.assert_close(AnySize(model)(images), model.forward_features(images), rtol=1e-5, atol=1e-5)


def test_a_model_read_from_its_run_is_whole(tmp_path: Path):
    mae = tiny_mae()
    again = to_objective(read_pretrained(save_run(tmp_path, mae)))
    assert again.config == mae.config
