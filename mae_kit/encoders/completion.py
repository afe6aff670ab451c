"""The rest of an image, drawn pixel by pixel from those before: each block keeps the keys and values of the past."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from mae_kit.encoders.image_gpt import ImageGPT


def complete(
    model: ImageGPT, codes: Int64[Tensor, "b n"], given: int, chances: Float[Tensor, "b n"]
) -> Int64[Tensor, "b n"]:
    """Keep the first `given` colors and draw the others, each by its probability given all before it.

    Args:
        model: Causal.
        codes: Colors of the pixels; those after the first `given` are not looked at.
        given: How many are kept.
        chances: In [0, 1): the same chances draw the same colors.
    """
    past = [(None, None)] * len(model.blocks)
    drawn = codes[:, :given]
    entering = model.colors_before(codes[:, : given + 1])
    for place in range(given, codes.shape[1]):
        x = entering + model.pos_embed[place + 1 - entering.shape[1] : place + 1]
        tokens, past = _go_on(model, x, past)
        logits = model.color_head(tokens[:, -1]).float()
        drawn = torch.cat([drawn, draw(logits, chances[:, place])[:, None]], dim=1)
        entering = model.embed(drawn[:, -1:])
    return drawn


def draw(logits: Float[Tensor, "b k"], chances: Float[Tensor, " b"]) -> Int64[Tensor, " b"]:
    """The class in whose share of 0..1 the chance falls."""
    upto = logits.double().softmax(dim=1).cumsum(dim=1)
    return (upto <= chances[:, None] * upto[:, -1:]).sum(dim=1)


def _go_on(model: ImageGPT, x: Float[Tensor, "b m d"], past: list[Any]) -> tuple[Float[Tensor, "b m d"], list[Any]]:
    """The tokens of m more places, one if there is a past, and the past with them."""
    seen, blocks = [], list[Any](model.blocks)
    for block, (keys, values) in zip(blocks, past, strict=True):
        attention = block.attn
        q, k, v = attention.qkv(block.norm1(x)).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if keys is not None:
            k, v = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=keys is None)
        x = x + attention.proj(attended.transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
        seen.append((k, v))
    return model.norm(x), seen
