"""Decoders: small networks that predict every patch from encoded tokens."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from timm.layers import LayerNorm, Mlp
from timm.models.convnext import ConvNeXtBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mae_kit.encoders.position_embeddings import sincos_positions
from mae_kit.encoders.timm_models import MOST_BLOCKS
from mae_kit.errors import UserError


class TransformerDecoder(nn.Module):
    """MAE's decoder: visible tokens, mask tokens everywhere else, fixed positions, a few narrow blocks.

    Args:
        encoder_dim: Width of the encoder's tokens.
        grid: Rows and columns of patches.
        outputs: Values predicted for each patch, p * p * c.
        prefix: Prefix tokens of the encoder; they pass through, their prediction is dropped.
        dim: Width of the decoder.
        depth: Blocks.
        heads: Attention heads.

    Raises:
        UserError: The heads do not divide the width.
    """

    def __init__(
        self, encoder_dim: int, grid: tuple[int, int], outputs: int, prefix: int, dim: int, depth: int, heads: int
    ):
        super().__init__()
        _must_divide(heads, dim)
        self.grid, self.prefix = grid, prefix
        self.embed = nn.Linear(encoder_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(sincos_positions(dim, grid, prefix), requires_grad=False)
        _must_have_blocks(depth)
        self.blocks = nn.Sequential(*[Block(dim, heads, qkv_bias=True, norm_layer=LayerNorm) for _ in range(depth)])
        self.norm = LayerNorm(dim, eps=1e-6)
        self.pred = nn.Linear(dim, outputs)

    def forward(self, tokens: Float[Tensor, "b t d"], visible: Int64[Tensor, "b v"]) -> Float[Tensor, "b n q"]:
        """Predict every patch from the encoded prefix and visible tokens.

        Args:
            tokens: Prefix tokens, then those of the visible patches.
            visible: Indices of the visible patches.
        """
        x = self.embed(tokens)
        prefix, x = x[:, : self.prefix], x[:, self.prefix :]
        b, _, d = x.shape
        everywhere = self.mask_token.to(x.dtype).expand(b, self.grid[0] * self.grid[1], d)
        placed = everywhere.scatter(1, visible[:, :, None].expand(-1, -1, d), x)
        x = torch.cat([prefix, placed], dim=1) + self.pos_embed
        return self.pred(self.norm(self.blocks(x)))[:, self.prefix :]


class CrossDecoder(nn.Module):
    """CrossMAE's decoder: mask tokens that attend to the encoder's, not to each other, so that any may be left out.

    Each block attends to its own learned mixture of the tokens after all of the encoder's blocks.

    Args:
        encoder_dim: Width of the encoder's tokens.
        layers: Number of token maps of the encoder.
        grid: Rows and columns of patches.
        outputs: Values predicted for each patch, p * p * c.
        dim: Width of the decoder.
        depth: Blocks.
        heads: Attention heads.

    Raises:
        UserError: The heads do not divide the width.
    """

    def __init__(
        self, encoder_dim: int, layers: int, grid: tuple[int, int], outputs: int, dim: int, depth: int, heads: int
    ):
        super().__init__()
        _must_divide(heads, dim)
        _must_have_blocks(depth)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(sincos_positions(dim, grid, 0), requires_grad=False)
        self.mix = nn.Linear(layers, depth, bias=False)
        self.mixed_norms = nn.ModuleList(LayerNorm(encoder_dim, eps=1e-6) for _ in range(depth))
        self.blocks = nn.ModuleList(CrossBlock(encoder_dim, dim, heads) for _ in range(depth))
        self.norm = LayerNorm(dim, eps=1e-6)
        self.pred = nn.Linear(dim, outputs)

    def forward(self, layers: list[Float[Tensor, "b t d"]], where: Int64[Tensor, "b m"]) -> Float[Tensor, "b m q"]:
        """Predict m patches of each image.

        Args:
            layers: The encoder's tokens before its first block and after each.
            where: Indices of the patches.
        """
        mixtures = torch.tensordot(self.mix.weight, torch.stack(layers).to(self.mix.weight.dtype), dims=1)
        x = self.mask_token + self.pos_embed[0][where]
        for block, norm, mixed in zip(self.blocks, self.mixed_norms, mixtures, strict=True):
            x = block(x, norm(mixed))
        return self.pred(self.norm(x))


class CrossBlock(nn.Module):
    """A decoder block whose tokens attend to those of the encoder alone (CrossMAE, figure 3).

    Args:
        encoder_dim: Width of the encoder's tokens.
        dim: Width of the block's own.
        heads: Attention heads.
    """

    def __init__(self, encoder_dim: int, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.fused_attn = True
        self.norm1 = LayerNorm(dim, eps=1e-6)
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(encoder_dim, 2 * dim), nn.Linear(dim, dim)
        self.norm2 = LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Float[Tensor, "b m d"], encoded: Float[Tensor, "b t e"]) -> Float[Tensor, "b m d"]:
        q, k, v = (self._by_head(y) for y in (self.q(self.norm1(x)), *self.kv(encoded).chunk(2, dim=-1)))
        if self.fused_attn:
            attended = F.scaled_dot_product_attention(q, k, v)
        else:
            attended = (q * q.shape[-1] ** -0.5 @ k.mT).softmax(dim=-1) @ v
        x = x + self.proj(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))

    def _by_head(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b a t p"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class ConvNeXtDecoder(nn.Module):
    """FCMAE's decoder: mask tokens at the hidden cells, then a dense ConvNeXt V2 block.

    Args:
        encoder_dim: Width of the encoder's cells.
        grid: Rows and columns of cells.
        outputs: Values predicted for each cell, p * p * c.
        dim: Width of the decoder.
        depth: Blocks.
    """

    def __init__(self, encoder_dim: int, grid: tuple[int, int], outputs: int, dim: int, depth: int):
        super().__init__()
        self.grid = grid
        self.embed = nn.Linear(encoder_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        _must_have_blocks(depth)
        self.blocks = nn.Sequential(*[ConvNeXtBlock(dim, use_grn=True, ls_init_value=None) for _ in range(depth)])
        self.pred = nn.Linear(dim, outputs)

    def forward(self, cells: Float[Tensor, "b n d"], hidden: Bool[Tensor, "b n"]) -> Float[Tensor, "b n q"]:
        """Predict every cell; tokens of hidden cells are not used."""
        x = self.embed(cells)
        x = torch.where(hidden[:, :, None], self.mask_token.to(x.dtype), x)
        x = self.blocks(x.transpose(1, 2).unflatten(2, self.grid))
        return self.pred(x.flatten(2).transpose(1, 2))


class StageFusion(nn.Module):
    """Hiera's fusion: the maps of all stages, resized to the last one by a convolution, and summed.

    Args:
        widths: Width of each map but the last, the finest first; each has twice the side of the next.
        dim: Width of the last map.
    """

    def __init__(self, widths: list[int], dim: int):
        super().__init__()
        sides = [2 ** (len(widths) - i) for i in range(len(widths))]
        self.layers = nn.ModuleList(
            nn.Conv2d(width, dim, side, side) for width, side in zip(widths, sides, strict=True)
        )
        self.norm = LayerNorm(dim, eps=1e-6)

    def forward(self, maps: list[Float[Tensor, "b u _ _ _"]]) -> Float[Tensor, "b v d"]:
        """Fuse the maps to tokens, one mask unit after the other."""
        total = maps[-1]
        for layer, x in zip(self.layers, maps[:-1], strict=True):
            small = layer(x.flatten(0, 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            total = total + small.unflatten(0, total.shape[:2])
        return self.norm(total).flatten(1, 3)


def _must_divide(heads: int, dim: int) -> None:
    if heads < 1 or dim % heads:
        problem = f"decoder_heads {heads} does not divide decoder_dim {dim}"
        raise UserError("objective.decoder_heads", problem, "choose, for example, 8 of 512")


def _must_have_blocks(depth: int) -> None:
    if not 1 <= depth <= MOST_BLOCKS:
        raise UserError("objective.decoder_depth", f"decoder_depth is {depth}", f"give 1 to {MOST_BLOCKS} blocks")
