"""What every head of a vision transformer attends to."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from timm.utils.attention_extract import AttentionExtract
from torch import Tensor

from mae_kit.backbones.vit import ViT


def attention_maps(encoder: ViT, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b l a t t"]:
    """The attention of l layers with a heads: row q of a map says where token q looks, and sums to 1.

    It needs b * l * a * t * t floats: 60 MB for one image of 224 pixels and a ViT-L.
    """
    with _written_out(encoder):
        maps = AttentionExtract(encoder.model)(images)
    return torch.stack(list(maps.values()), dim=1)


@contextmanager
def _written_out(encoder: ViT) -> Iterator[None]:
    """A fused kernel never holds the map, so that none can be taken from it."""
    layers: list[Any] = [module for module in encoder.modules() if hasattr(module, "fused_attn")]
    fused = [layer.fused_attn for layer in layers]
    for layer in layers:
        layer.fused_attn = False
    try:
        yield
    finally:
        for layer, before in zip(layers, fused, strict=True):
            layer.fused_attn = before
