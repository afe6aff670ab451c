"""Prithvi-EO's layouts: features of one image as its code computes them, and SatMAE's, which is recognized."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.errors import raises
from support.tiny_models import ARGS, shaken
from torch import Tensor, nn

from mae_kit.weights.plain_vit import Hints
from mae_kit.weights.pretrained import build_timm
from mae_kit.weights.recognize import read_pretrained

BANDS, DATES, GRID, DIM = 6, 3, 4, 48
HINTS = Hints(encoder_heads=3)


def sincos(dim: int, places: Tensor) -> Tensor:
    angles = places[:, None] / 10_000 ** (torch.arange(dim // 2) / (dim // 2))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def positions(dates: int) -> Tensor:
    """[1 1+t*y*x d] of 3D sin-cos: six sixteenths for the column, six for the row, four for the date."""
    t, y, x = torch.meshgrid(torch.arange(dates), torch.arange(GRID), torch.arange(GRID), indexing="ij")
    parts = sincos(DIM // 16 * 6, x.flatten()), sincos(DIM // 16 * 6, y.flatten()), sincos(DIM // 16 * 4, t.flatten())
    return torch.cat([torch.zeros(1, DIM), torch.cat(parts, dim=1)])[None]


class TheirViT(nn.Module):
    """MAE's encoder for several dates."""

    def __init__(self):
        super().__init__()
        plain = timm.create_model("vit_base_patch16_224", num_classes=0, **ARGS)
        self.cls_token: Any = plain.cls_token
        self.blocks: Any = plain.blocks
        self.norm: Any = plain.norm
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(BANDS, DIM, (1, 8, 8), (1, 8, 8))})
        self.pos_embed = nn.Parameter(positions(DATES), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](images[:, :, None]).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + positions(1)
        return self.norm(self.blocks(x))


DECODER = {"mask_token": torch.zeros(1, 1, 32), "decoder_pos_embed": torch.zeros(1, 49, 32)}
DECODER |= {"decoder_embed.weight": torch.zeros(32, DIM), "decoder_blocks.0.norm1.weight": torch.zeros(32)}


@pytest.mark.parametrize("version", [1, 2])
def test_one_image_has_the_features_of_the_first_date(tmp_path: Path, version: int):
    model = shaken(TheirViT())
    tensors = model.state_dict()
    if version == 1:
        tensors |= DECODER
    else:
        tensors = {f"encoder.{name}": tensor for name, tensor in tensors.items()}
        tensors |= {"encoder.temporal_embed_enc.scale": torch.ones(1), "decoder.mask_token": torch.zeros(1, 1, 32)}
    torch.save(tensors, tmp_path / "prithvi.pt")
    weights = read_pretrained(tmp_path / "prithvi.pt", HINTS)
    images = torch.randn(2, BANDS, 32, 32)
    found = build_timm(weights).forward_features(images)
    torch.testing.assert_close(found, model(images), rtol=1e-5, atol=1e-5)
    beside = {"temporal_embed_enc.scale", "decoder.mask_token"} if version == 2 else set(DECODER)
    assert set(weights.left_out) == beside and "first of 3 dates" in " ".join(weights.notes)
    assert weights.config.channels == BANDS and weights.config.image_size == (32, 32)


def test_patches_of_several_dates_are_refused(tmp_path: Path):
    tensors = TheirViT().state_dict()
    tensors["patch_embed.proj.weight"] = torch.zeros(DIM, BANDS, 2, 8, 8)
    torch.save(tensors, tmp_path / "prithvi.pt")
    with raises("weights.dates"):
        read_pretrained(tmp_path / "prithvi.pt", HINTS)


def satmae(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A token for each of two groups of channels of a patch."""
    weight, bias = tensors.pop("patch_embed.proj.weight"), tensors.pop("patch_embed.proj.bias")
    for group in (0, 1):
        tensors |= {f"patch_embed.{group}.proj.weight": weight, f"patch_embed.{group}.proj.bias": bias}
    return tensors | {"channel_embed": torch.zeros(1, 2, 16), "channel_cls_embed": torch.zeros(1, 1, 16)}


def test_satmae_of_rgb_is_a_plain_vit_and_the_others_have_one_line(tmp_path: Path):
    model = shaken(timm.create_model("vit_base_patch16_224", num_classes=0, **ARGS))
    torch.save({"model": model.state_dict()}, tmp_path / "rgb.pth")
    images = torch.randn(2, 3, 32, 32)
    weights = read_pretrained(tmp_path / "rgb.pth", HINTS)
    torch.testing.assert_close(build_timm(weights).forward_features(images), model.forward_features(images))
    torch.save({"model": satmae(model.state_dict())}, tmp_path / "sentinel.pth")
    with raises("weights.layout.channel_groups"):
        read_pretrained(tmp_path / "sentinel.pth", HINTS)
    temporal = model.state_dict() | {"pos_embed": model.pos_embed[..., :24]}
    torch.save({"model": temporal}, tmp_path / "temporal.pth")
    with raises("weights"):
        read_pretrained(tmp_path / "temporal.pth", HINTS)
