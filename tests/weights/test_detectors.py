# Also tests tasks/yolos.py, tasks/detr.py, tasks/query_attention.py
"""YOLOS and DETR of transformers: read and written as they do, the same boxes, logits, attention and loss."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.errors import raises
from torch import Tensor, nn

from mae_kit.commands.export import export
from mae_kit.commands.import_ import import_
from mae_kit.encoders import ViT
from mae_kit.objectives import MAE
from mae_kit.tasks.classifier import ModelSpec
from mae_kit.tasks.config import FinetuneData
from mae_kit.tasks.detection import Detection
from mae_kit.tasks.detector import load_detector
from mae_kit.tasks.query_attention import query_attention
from mae_kit.tasks.set_criterion import SetCriterion, Truth
from mae_kit.weights.initialize import start_from
from mae_kit.weights.recognize import load_encoder

transformers = pytest.importorskip("transformers")

SIZE = 32, 48
TRUE = [
    Truth(torch.tensor([[0.3, 0.4, 0.2, 0.3], [0.7, 0.5, 0.4, 0.6]]), torch.tensor([2, 0])),
    Truth(torch.empty(0, 4), torch.empty(0, dtype=torch.int64)),
]


def theirs(kind: str, mid: bool = False) -> Any:
    torch.manual_seed(0)
    common = {"num_labels": 3, "auxiliary_loss": kind == "detr"}
    if kind == "yolos":
        form = {"hidden_size": 192, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 768}
        form |= {"image_size": list(SIZE), "patch_size": 8, "num_detection_tokens": 7, "layer_norm_eps": 1e-6}
        config = transformers.YolosConfig(**form, **common, use_mid_position_embeddings=mid)
        model = transformers.YolosForObjectDetection(config)
        nn.init.normal_(model.vit.embeddings.position_embeddings, std=0.5)
        nn.init.normal_(model.vit.embeddings.detection_tokens, std=0.5)
    else:
        form = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4}
        form |= {"decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_queries": 7}
        backbone = {"backbone": "resnet18", "use_timm_backbone": True, "use_pretrained_backbone": False}
        model = transformers.DetrForObjectDetection(transformers.DetrConfig(**form, **backbone, **common))
    return model.eval()


@pytest.mark.parametrize("kind", ["yolos", "detr"])
def test_boxes_logits_and_loss_are_theirs(tmp_path: Path, kind: str):
    model = theirs(kind)
    model.save_pretrained(tmp_path)
    read, config = load_detector(tmp_path)
    assert config.detector == kind and len(config.model.classes) == 3
    images = torch.randn(2, 3, *SIZE)
    labels = [{"class_labels": one.classes, "boxes": one.boxes} for one in TRUE]
    with torch.no_grad():
        expected = model(images, labels=labels)
        layers = read(images)
        loss = SetCriterion(3)(layers, TRUE)
    close(layers[-1].logits, expected.logits)
    close(layers[-1].boxes, expected.pred_boxes)
    if kind == "detr":
        for layer, other in zip(layers, expected.auxiliary_outputs, strict=False):
            close(layer.logits, other["logits"])
    close(loss["loss"], expected.loss)
    for name, other in {"class_loss": "loss_ce", "l1_loss": "loss_bbox", "giou_loss": "loss_giou"}.items():
        close(loss[name], expected.loss_dict[other])


@pytest.mark.parametrize("kind", ["yolos", "detr"])
def test_queries_attend_as_theirs_do(tmp_path: Path, kind: str):
    model = theirs(kind)
    model.set_attn_implementation("eager")
    model.save_pretrained(tmp_path)
    read, _ = load_detector(tmp_path)
    images = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        expected = model(images, output_attentions=True)
    found, heat = query_attention(read, images)
    close(found.logits, expected.logits)
    last = (expected.attentions if kind == "yolos" else expected.cross_attentions)[-1].mean(dim=1)
    close(heat.flatten(2), last[:, -7:, 1:-7] if kind == "yolos" else last)
    assert heat.shape[2:] == ((4, 6) if kind == "yolos" else (1, 2))


def test_a_yolos_with_positions_at_every_layer_is_refused(tmp_path: Path):
    theirs("yolos", mid=True).save_pretrained(tmp_path)
    with raises("detector.layout"):
        load_detector(tmp_path)


DETECTORS = {
    "yolos": (ModelSpec("vit_tiny_patch16_224", {"patch_size": 8, "depth": 2}), Detection("yolos", queries=7)),
    "detr": (
        ModelSpec("resnet18", {}),
        Detection("detr", 7, layers=(1, 2), width=32, heads=4, feedforward=64, stride=16),
    ),
}


def ours(kind: str, folder: Path) -> Any:
    """A detector of three classes with weights that matter, in a file."""
    torch.manual_seed(0)
    spec, task = DETECTORS[kind]
    data = FinetuneData("", 1, list(SIZE), mean=[0.5] * 3, std=[0.25] * 3)
    model, record = task.model(data, None, spec, ["ant", "bee", "cat"], 0.0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1) if parameter.dim() < 2 else None
    model.train()(torch.randn(2, 3, 64, 96)) if kind == "detr" else None
    task.save(folder, model, record)
    return model.eval()


@pytest.mark.parametrize("kind", DETECTORS)
def test_what_we_write_they_read_and_we_too(tmp_path: Path, kind: str):
    model = ours(kind, tmp_path)
    export(tmp_path, tmp_path / "theirs", format=kind)  # type: ignore[arg-type]
    read = transformers.AutoModelForObjectDetection.from_pretrained(tmp_path / "theirs").eval()
    images = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        expected, found = model(images)[-1], read(images)
    close(expected.logits, found.logits)
    close(expected.boxes, found.pred_boxes)
    assert read.config.id2label == {0: "ant", 1: "bee", 2: "cat"}
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "theirs")
    shown = processor(images=Image.new("RGB", (10, 10)), return_tensors="pt")["pixel_values"]
    assert shown.shape == (1, 3, *SIZE) and (shown[..., :32] == -2).all() and (shown[..., 32:] == 0).all()

    import_(tmp_path / "theirs", tmp_path / "again")
    again, config = load_detector(tmp_path / "again")
    assert (config.model.size, config.classes, config.model.mean) == (SIZE, ["ant", "bee", "cat"], [0.5] * 3)
    with torch.no_grad():
        close(again(images)[-1].boxes, expected.boxes)


def test_pretraining_starts_from_a_yolos(tmp_path: Path):
    model = ours("yolos", tmp_path)
    export(tmp_path, tmp_path / "theirs", format="yolos")
    encoder = load_encoder(tmp_path / "theirs")
    images = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        close(encoder(images), model.backbone.forward_features(images))
    mae = MAE(ViT("vit_tiny_patch16_224", img_size=list(SIZE), patch_size=8, depth=2), decoder_dim=32, decoder_depth=1)
    start_from(tmp_path / "theirs", mae, [0.5] * 3, [0.25] * 3)
    torch.testing.assert_close(mae.encoder.model.patch_embed.proj.weight, model.backbone.patch_embed.proj.weight)


def test_what_they_have_no_place_for_is_refused(tmp_path: Path):
    ours("yolos", tmp_path)
    with raises("format.task"):
        export(tmp_path, tmp_path / "out", format="detr")
    export(tmp_path, tmp_path / "theirs", format="yolos")
    with raises("img_size.detector"):
        import_(tmp_path / "theirs", tmp_path / "again", img_size=64)
    spec, _ = DETECTORS["yolos"]
    form: dict[str, Any] = {"width": 32, "heads": 4, "feedforward": 64, "layers": (1, 1)}
    cases = {"format.backbone": (spec, False), "format.proposals": (ModelSpec("resnet18", {}), True)}
    for key, (other, proposals) in cases.items():
        task = Detection("detr", 7, proposals, **form)
        task.save(tmp_path, *task.model(FinetuneData("", 1, list(SIZE)), None, other, ["ant"], 0.0))
        with raises(key):
            export(tmp_path, tmp_path / "out", format="detr")


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected.to(ours), atol=1e-5, rtol=1e-5)
