"""The encoder of iGPT: a transformer over the colors of pixels, which can also draw the rest of an image."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mae_kit.encoders.encoder import Encoder, Size
from mae_kit.encoders.image_gpt_model import TimmImageGPT


class ImageGPT(Encoder):
    """A transformer over pixels, one token each, whose colors come from a palette (Chen et al., ICML 2020).

    Args:
        name: igpt_s, igpt_m or igpt_l.
        img_size: Height and width in pixels, one number for a square (paper: 32, 48 or 64).
        in_chans: Channels of the images.
        colors: Size of the palette (paper: 512).
        embed_dim: Width of the tokens; by default the model's own.
        depth: Number of blocks; by default the model's own.
        num_heads: Attention heads; by default the model's own.
        causal: Whether a token attends only to earlier ones; false for the paper's BERT variant.

    Raises:
        UserError: There is no such model.

    Example:
        >>> import torch, mae_kit as mk
        >>> encoder = mk.ImageGPT("igpt_s", img_size=8, colors=16, embed_dim=48, depth=2, num_heads=3)
        >>> encoder.fit_palette(torch.randn(4, 3, 8, 8))
        >>> encoder(torch.randn(2, 3, 8, 8)).shape
        torch.Size([2, 64, 48])
    """

    timm_class, family, examples = TimmImageGPT, "iGPT", "igpt_*"
    model: TimmImageGPT
    causal: bool

    def __init__(
        self,
        name: str = "igpt_s",
        img_size: Size = 32,
        in_chans: int = 3,
        colors: int = 512,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        causal: bool = True,
    ):
        sizes = {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads}
        images = {"img_size": img_size, "in_chans": in_chans, "colors": colors, "causal": causal}
        super().__init__(name, sizes | images)

    @classmethod
    def arguments_of(cls, model: TimmImageGPT) -> dict[str, Any]:
        first: Any = model.blocks[0]
        return {
            "img_size": list(model.img_size),
            "in_chans": model.palette.shape[1],
            "colors": model.palette.shape[0],
            "embed_dim": model.embed_dim,
            "depth": len(model.blocks),
            "num_heads": first.attn.num_heads,
            "causal": model.causal,
        }

    def read_sizes(self) -> None:
        self.image_size = self.grid = self.cells = self.model.img_size
        self.patch_size = self.stride = 1, 1
        self.dim = self.embed_dim = self.model.embed_dim
        self.channels, self.depth = self.model.palette.shape[1], len(self.model.blocks)
        self.causal = self.model.causal

    def fit_palette(self, images: Float[Tensor, "m c h w"]) -> None:
        """Fit the palette to images, by k-means over their pixels.

        Args:
            images: Normalized as in training.

        Raises:
            UserError: The images have fewer colors than the palette.
        """
        self.model.fit_palette(images)

    def layers(self, images: Float[Tensor, "b c h w"], numbers: Sequence[int]) -> list[Float[Tensor, "b n d"]]:
        """Tokens after some of the blocks, each through the norm that follows it.

        For a linear probe those in the middle are best (paper, figure 2).
        """
        return self.model.encode_layers(self.model.enter(self.model.codes(images)), numbers)

    def fill(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], token: Float[Tensor, " d"]
    ) -> Float[Tensor, "b n d"]:
        """Encode with `token` in place of each hidden pixel's embedding; not if causal."""
        return self.model.fill(self.model.codes(images), hidden, token)

    def complete(
        self, images: Float[Tensor, "b c h w"], given: int, noise: Float[Tensor, "b n"]
    ) -> Int64[Tensor, "b n"]:
        """Keep the colors of the first `given` pixels and sample the others; only if causal.

        Args:
            images: Normalized.
            given: Pixels that are kept, in raster order.
            noise: In [0, 1): the same noise samples the same colors.
        """
        return complete(self.model, self.model.codes(images), given, noise)


def complete(
    model: TimmImageGPT, codes: Int64[Tensor, "b n"], given: int, noise: Float[Tensor, "b n"]
) -> Int64[Tensor, "b n"]:
    """Sample colors one by one, each given all before it; every block caches its attention keys and values.

    Args:
        model: Causal.
        codes: Colors of the pixels; those after the first `given` are ignored.
        given: Pixels that are kept.
        noise: In [0, 1): the same noise samples the same colors.
    """
    cache = [(None, None)] * len(model.blocks)
    sampled = codes[:, :given]
    embedded = model.colors_before(codes[:, : given + 1])
    for position in range(given, codes.shape[1]):
        x = embedded + model.pos_embed[position + 1 - embedded.shape[1] : position + 1]
        tokens, cache = _encode_next(model, x, cache)
        logits = model.color_head(tokens[:, -1]).float()
        sampled = torch.cat([sampled, draw(logits, noise[:, position])[:, None]], dim=1)
        embedded = model.embed(sampled[:, -1:])
    return sampled


def draw(logits: Float[Tensor, "b k"], noise: Float[Tensor, " b"]) -> Int64[Tensor, " b"]:
    """Sample a class by inversion of the cumulative distribution."""
    cumulative = logits.double().softmax(dim=1).cumsum(dim=1)
    return (cumulative <= noise[:, None] * cumulative[:, -1:]).sum(dim=1)


def _encode_next(
    model: TimmImageGPT, x: Float[Tensor, "b m d"], cache: list[Any]
) -> tuple[Float[Tensor, "b m d"], list[Any]]:
    """Encode m more tokens, one if there is a cache, and extend the cache."""
    extended, blocks = [], list[Any](model.blocks)
    for block, (keys, values) in zip(blocks, cache, strict=True):
        attention = block.attn
        q, k, v = attention.qkv(block.norm1(x)).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if keys is not None:
            k, v = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=keys is None)
        x = x + attention.proj(attended.transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
        extended.append((k, v))
    return model.norm(x), extended
