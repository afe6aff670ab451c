"""Attention maps: computed explicitly instead of in a fused kernel, to see them or because it is faster."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from timm.utils.attention_extract import AttentionExtract
from torch import Tensor, nn

from mae_kit.encoders.encoder import Encoder


def attention_maps(encoder: Encoder, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b l a t t"]:
    """Compute the attention of all l layers and a heads: row q of a map says where token q looks, and sums to 1.

    Args:
        encoder: One that `has_attention_maps`.
        images: Normalized.

    Returns:
        b * l * a * t * t floats: 60 MB for one image of 224 pixels and a ViT-L.
    """
    with written_out(encoder):
        maps = AttentionExtract(encoder.model)(images)
    return torch.stack(list(maps.values()), dim=1)


def write_out(module: nn.Module) -> None:
    """Make every attention layer compute its map, t * t numbers a head, instead of calling a fused kernel."""
    for layer in _layers(module):
        layer.fused_attn = False


@contextmanager
def written_out(module: nn.Module) -> Iterator[None]:
    """Write attention out for a while: a fused kernel never holds the map."""
    fused = [layer.fused_attn for layer in _layers(module)]
    write_out(module)
    try:
        yield
    finally:
        for layer, before in zip(_layers(module), fused, strict=True):
            layer.fused_attn = before


def _layers(module: nn.Module) -> list[Any]:
    return [part for part in module.modules() if hasattr(part, "fused_attn")]
