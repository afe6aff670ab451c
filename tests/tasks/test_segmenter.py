"""Heads on the backbones of every family: logits of each pixel, gradients everywhere, saved and loaded equal."""
# Also tests tasks/headed.py.

from pathlib import Path

import pytest
import torch
from support.errors import raises
from torch import nn

from mae_kit.encoders import ViT
from mae_kit.tasks.classifier import ModelSpec
from mae_kit.tasks.labeled import backbone_args, build_backbone
from mae_kit.tasks.segmenter import Segmenter, SegmenterConfig, load_segmenter, save_segmenter
from mae_kit.weights.config import ModelConfig

BACKBONES = {
    "vit_tiny_patch16_224": {"depth": 2, "embed_dim": 48, "num_heads": 2, "patch_size": 8},
    "beit_base_patch16_224": {"depth": 2, "embed_dim": 48, "num_heads": 2},
    "swin_tiny_patch4_window7_224": {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [2] * 4, "window_size": 4},
    "hiera_tiny_224": {"embed_dim": 24, "stages": [1, 1, 1, 1]},
    "convnextv2_atto": {"depths": [1, 1, 1, 1]},
    "resnet18": {},
}


@pytest.mark.parametrize("head", ["linear", "pyramid", "upernet"])
@pytest.mark.parametrize("name", BACKBONES)
def test_every_pixel_has_logits_and_every_weight_a_gradient(name: str, head, tmp_path: Path):
    spec = ModelSpec(name, BACKBONES[name])
    backbone = build_backbone(spec, None, 0.0, (64, 96), 3).model
    args = backbone_args(backbone, None, spec, (64, 96), 3)
    model = ModelConfig(name, args, [0.5] * 3, [0.2] * 3, image_size=(64, 96), classes=["a", "b"])
    record = SegmenterConfig(model, head, 32, 0.5)
    segmenter = record.build(backbone)
    logits = segmenter(torch.randn(2, 3, 64, 96))
    assert logits.shape == (2, 2, 64, 96)
    (logits**2).mean().backward()
    assert not [n for n, p in segmenter.named_parameters() if p.requires_grad and p.grad is None]
    save_segmenter(tmp_path, segmenter, record)
    loaded, known = load_segmenter(tmp_path)
    image = torch.randn(1, 3, 64, 96)
    assert known == record
    torch.testing.assert_close(loaded(image), segmenter.eval()(image))


def test_the_backbone_is_the_encoder():
    vit = ViT("vit_tiny_patch16_224", img_size=64, patch_size=8, embed_dim=48, depth=2, num_heads=2)
    segmenter = Segmenter(build_backbone(None, vit, 0.0, (64, 64), 3).model, 3, "linear")
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(segmenter.eval().maps(images)[0].flatten(2).mT, vit.eval()(images)[:, 1:])


def test_upernet_takes_blocks_evenly_over_the_depth():
    backbone = build_backbone(ModelSpec("vit_base_patch16_224", {}), None, 0.0, (64, 64), 3).model
    assert Segmenter(backbone, 3, "upernet", 16).levels == [2, 5, 8, 11]


def test_a_model_without_maps_is_refused():
    with raises("model.name.maps"):
        Segmenter(nn.Linear(2, 2), 3)
    with raises("model.name"):
        build_backbone(None, None, 0.0, (64, 64), 3)
