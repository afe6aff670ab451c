"""Attention maps against those computed by hand; and written out, the same function as fused."""

from typing import Any

import pytest
import timm
import torch

from mae_kit.encoders.attention import attention_maps, write_out
from mae_kit.encoders.vit import ViT


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_medium_patch16_reg4_gap_256"])
def test_the_maps_are_those_of_queries_and_keys(name: str):
    torch.manual_seed(0)
    encoder = ViT(name, [16, 24], patch_size=8, embed_dim=24, depth=2, num_heads=3).eval()
    images = torch.randn(2, 3, 16, 24)
    with torch.no_grad():
        before = encoder(images)
        maps = attention_maps(encoder, images)
        torch.testing.assert_close(encoder(images), before)
        t = encoder.prefix + 6
        assert maps.shape == (2, 2, 3, t, t)
        x = encoder.model.norm_pre(encoder.model._pos_embed(encoder.model.patch_embed(images)))
        blocks: list[Any] = list(encoder.model.blocks)
        for layer, block in enumerate(blocks):
            queries, keys, _ = block.attn.qkv(block.norm1(x)).reshape(2, t, 3, 3, 8).permute(2, 0, 3, 1, 4)
            wanted = (queries @ keys.transpose(-2, -1) / 8**0.5).softmax(dim=-1)
            torch.testing.assert_close(maps[:, layer], wanted)
            x = block(x)


def test_the_encoder_is_left_as_it_was():
    encoder = ViT("vit_tiny_patch16_224", 16, patch_size=8, embed_dim=24, depth=2, num_heads=3).eval()
    blocks: list[Any] = list(encoder.model.blocks)
    blocks[1].attn.fused_attn = False
    hooks = [len(module._forward_hooks) for module in encoder.modules()]
    attention_maps(encoder, torch.randn(1, 3, 16, 16))
    assert [block.attn.fused_attn for block in blocks] == [True, False]
    assert [len(module._forward_hooks) for module in encoder.modules()] == hooks


PLAIN: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 3}


@pytest.mark.parametrize(
    ("name", "size", "args"),
    [
        ("vit_tiny_patch16_224", 32, PLAIN),
        ("beit_base_patch16_224", 32, PLAIN),
        ("igpt_s", 8, PLAIN),
        ("swin_tiny_patch4_window7_224", 56, {"embed_dim": 12, "depths": (2, 2), "num_heads": (1, 2)}),
        ("hiera_tiny_224", 64, {"embed_dim": 12, "stages": (1, 1, 2, 1)}),
    ],
)
def test_written_out_it_is_the_same_function(name: str, size: int, args: dict[str, Any]):
    torch.manual_seed(0)
    model = timm.create_model(name, img_size=size, num_classes=5, **args).eval()
    images, found = torch.randn(2, 3, size, size), []
    for _ in range(2):
        model.zero_grad()
        logits = model(images)
        logits.square().mean().backward()
        found.append([logits, *(p.grad for p in model.parameters() if p.grad is not None)])
        write_out(model)
    assert not any(getattr(part, "fused_attn", False) for part in model.modules())
    torch.testing.assert_close(found[0], found[1])
