# Also tests tasks/yolos.py, tasks/detr.py
"""YOLOS and DETR of transformers: read as they write them, the same boxes, logits and loss."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.errors import raises
from torch import Tensor, nn

from mae_kit.tasks.detector import load_detector
from mae_kit.tasks.set_criterion import SetCriterion, Truth

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
    ours, config = load_detector(tmp_path)
    assert config.detector == kind and len(config.model.classes) == 3
    images = torch.randn(2, 3, *SIZE)
    labels = [{"class_labels": one.classes, "boxes": one.boxes} for one in TRUE]
    with torch.no_grad():
        expected = model(images, labels=labels)
        layers = ours(images)
        loss = SetCriterion(3)(layers, TRUE)
    close(layers[-1].logits, expected.logits)
    close(layers[-1].boxes, expected.pred_boxes)
    if kind == "detr":
        for layer, other in zip(layers, expected.auxiliary_outputs, strict=False):
            close(layer.logits, other["logits"])
    close(loss["loss"], expected.loss)
    for name, other in {"class_loss": "loss_ce", "l1_loss": "loss_bbox", "giou_loss": "loss_giou"}.items():
        close(loss[name], expected.loss_dict[other])


def test_a_yolos_with_positions_at_every_layer_is_refused(tmp_path: Path):
    theirs("yolos", mid=True).save_pretrained(tmp_path)
    with raises("detector.layout"):
        load_detector(tmp_path)


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected.to(ours), atol=1e-5, rtol=1e-5)
