"""Bare state dicts of timm's vision transformers: whatever a plain one lacks or has more is read from its tensors."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.tiny_models import ARGS, shaken

from mae_kit.commands.import_ import import_
from mae_kit.encoders import Encoder, ViT
from mae_kit.weights.plain_vit import Hints
from mae_kit.weights.pretrained import build_timm
from mae_kit.weights.recognize import load_encoder, read_pretrained

KINDS: dict[str, dict[str, Any]] = {
    "registers": {"reg_tokens": 4},
    "registers, positions of patches alone": {"reg_tokens": 4, "no_embed_class": True},
    "layer scale": {"init_values": 0.1},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "no class token, no norm behind the mean": {"class_token": False, "global_pool": "avg", "fc_norm": False},
    "attention pools": {"class_token": False, "global_pool": "map"},
    "normalized queries, no bias": {"qk_norm": True, "qkv_bias": False, "init_values": 0.1},
    "narrow": {"mlp_ratio": 2, "reg_tokens": 1},
    "mean, layer scale": {"init_values": 0.1, "global_pool": "avg"},
}


@pytest.mark.parametrize("classes", [0, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_they_compute_what_timm_does(tmp_path: Path, kind: str, classes: int):
    model = shaken(timm.create_model("vit_base_patch16_224", num_classes=classes, **ARGS, **KINDS[kind]))
    torch.save(model.state_dict(), tmp_path / "a.pth")
    weights = read_pretrained(tmp_path / "a.pth", Hints(encoder_heads=3))
    images, ours = torch.randn(2, 3, 32, 32), build_timm(weights)
    assert len(weights.classes) == classes and weights.left_out == []
    assert torch.equal(ours.forward_features(images), model.forward_features(images))
    if classes:
        assert torch.equal(ours(images), model(images))


def test_registers_of_dinov2_are_behind_the_class_token(tmp_path: Path):
    """Its own names: one table for class token and patches, and registers without positions."""
    model = shaken(
        timm.create_model("vit_base_patch16_224", reg_tokens=2, no_embed_class=True, init_values=0.1, **ARGS)
    )
    tensors = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("head.")}
    position = torch.randn(1, 1, 48)
    tensors["cls_token"] = tensors["cls_token"] - position
    tensors["pos_embed"] = torch.cat([position, tensors["pos_embed"]], dim=1)
    tensors["register_tokens"], tensors["mask_token"] = tensors.pop("reg_token"), torch.zeros(1, 48)
    torch.save(tensors, tmp_path / "dinov2.pth")
    weights = read_pretrained(tmp_path / "dinov2.pth", Hints(encoder_heads=3))
    assert weights.left_out == ["mask_token"]
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(build_timm(weights).forward_features(images), model.forward_features(images))


@pytest.mark.parametrize("registers", [0, 4])
def test_gates_of_dinov2s_largest(tmp_path: Path, registers: int):
    name = "vit_giant_patch14_reg4_dinov2" if registers else "vit_giant_patch14_dinov2"
    model = shaken(timm.create_model(name, num_classes=0, **ARGS))
    names = {name: name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3") for name in model.state_dict()}
    torch.save({names[name]: tensor for name, tensor in model.state_dict().items()}, tmp_path / "a.pth")
    weights = read_pretrained(tmp_path / "a.pth", Hints(encoder_heads=3))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(build_timm(weights).forward_features(images), model.forward_features(images))


def test_class_tokens_of_pixio_are_a_class_token_and_registers(tmp_path: Path):
    """Its own names: one tensor of class tokens, which have positions."""
    model = shaken(timm.create_model("vit_base_patch16_224", num_classes=0, reg_tokens=3, **ARGS))
    tensors = dict(model.state_dict())
    tensors["cls_token"] = torch.cat([tensors["cls_token"], tensors.pop("reg_token")], dim=1)
    torch.save(tensors, tmp_path / "pixio.pth")
    weights = read_pretrained(tmp_path / "pixio.pth", Hints(encoder_heads=3))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(build_timm(weights).forward_features(images), model.forward_features(images))


def test_an_encoder_of_a_published_size_needs_no_hint(tmp_path: Path):
    more: dict[str, Any] = {"depth": 1, "num_classes": 0, "reg_tokens": 4, "init_values": 0.1, "img_size": 64}
    model = shaken(timm.create_model("vit_tiny_patch16_224", **more))
    torch.save(model.state_dict(), tmp_path / "a.pth")
    import_(tmp_path / "a.pth", tmp_path / "run")
    encoder = load_encoder(tmp_path / "run")
    assert (encoder.prefix, encoder.grid, encoder.has_class_token) == (5, (4, 4), True)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(encoder(images), model.forward_features(images))
    assert isinstance(encoder, ViT) and Encoder.from_pretrained(tmp_path / "run").model_args["reg_tokens"] == 4
