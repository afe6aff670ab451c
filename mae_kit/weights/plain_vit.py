"""Plain vision transformers of any origin: their sizes, read from the shapes of the tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mae_kit.encoders.position_embeddings import sincos_positions
from mae_kit.errors import UserError
from mae_kit.weights.names import Tensors

# Width, blocks, heads: as the papers name them.
NAMED = {
    (192, 12, 3): "vit_tiny_patch16_224",
    (384, 12, 6): "vit_small_patch16_224",
    (768, 12, 12): "vit_base_patch16_224",
    (1024, 24, 16): "vit_large_patch16_224",
    (1280, 32, 16): "vit_huge_patch14_224",
}
HEADS = {dim: heads for dim, _, heads in NAMED}
HEAD_DIM, DECODER_HEAD_DIM = 64, 32  # in the papers' sizes but the huge one's, and of MAE's decoder

BLOCK = {f"{part}.*": f"{part}.*" for part in ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}


@dataclass(frozen=True)
class Hints:
    """What no tensor shows and the user may know.

    Attributes:
        encoder_heads: Attention heads of the encoder.
        decoder_heads: Attention heads of the decoder.
        normalized: Whether the decoder predicts normalized patches (norm_pix_loss).
        image_size: Height and width in pixels.
        average: Whether to read the moving average of a file that holds both it and the last weights.
    """

    encoder_heads: int | None = None
    decoder_heads: int | None = None
    normalized: bool | None = None
    image_size: tuple[int, int] | None = None
    average: bool | None = None


def depth_of(tensors: Tensors) -> int:
    """Blocks, by the highest number."""
    return 1 + max((int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")), default=-1)


def mlp_ratio(hidden: int, dim: int) -> float:
    """Timm's argument for an MLP of this width: it rounds down."""
    return hidden / dim if int(dim * (hidden / dim)) == hidden else (hidden + 0.5) / dim


def guessed_heads(dim: int, known: dict[int, int], head_dim: int, what: str) -> tuple[int, str]:
    """Heads of a width that are in no tensor's shape, and the sentence that says so.

    Raises:
        UserError: The width is not one of those in use.
    """
    heads = known.get(dim) or dim // head_dim
    if not heads or dim % heads:
        raise UserError(
            "weights.heads",
            f"a width of {dim} does not determine the attention heads of {what}",
            f"give --{what}-heads N",
        )
    return heads, f"{what}: {heads} attention heads, from its width of {dim}; --{what}-heads overrides it"


def model_of(file: str, tensors: Tensors, heads: int, grid: tuple[int, int]) -> tuple[str, dict[str, Any]]:
    """Timm's name and arguments of a plain ViT.

    Raises:
        UserError: Its layers are of other proportions than a plain ViT's, or the heads do not divide the width.
    """
    dim, channels, height, width = tensors["patch_embed.proj.weight"].shape
    hidden = tensors["blocks.0.mlp.fc1.bias"].numel()
    if hidden != 4 * dim:
        raise UserError(
            "weights.mlp_ratio",
            f"{file}: MLP width {hidden} with embed_dim {dim}",
            "only an mlp_ratio of 4 is supported",
        )
    if dim % heads:
        raise UserError(
            "weights.heads.divide",
            f"{file}: {heads} attention heads do not divide its width of {dim}",
            "give --encoder-heads N",
        )
    sizes = {"img_size": _one_or_two(grid[0] * height, grid[1] * width), "patch_size": _one_or_two(height, width)}
    return named(dim, depth_of(tensors), heads, sizes | {"in_chans": channels})


def find_grid(
    file: str, count: int, tables: Sequence[Tensor], said: Sequence[tuple[int, int] | None]
) -> tuple[tuple[int, int], str]:
    """Rows and columns of a position table, which its shape does not show where they differ.

    Args:
        file: Its name in messages.
        count: Patches, n.
        tables: [1 1+n d] of one grid, with a row for the class token: the encoder's, and the decoder's if there is one.
        said: The grid by the file's settings and by the user, None where they do not say; others do not count.

    Returns:
        The grid, and a note where it was assumed: empty if settings, user or a sin-cos table show it.

    Raises:
        UserError: `weights.grid`: nothing shows it, and it is no square.
    """
    grids = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    if known := next((grid for grid in said if grid in grids), None):
        return known, ""
    fixed = [grid for grid in grids for table in tables if _is_sincos(table, grid)]
    if fixed:
        return fixed[0], ""
    side = round(count**0.5)
    if side**2 == count:
        return (side, side), f"a square of {side} x {side} patches, from their number; --img-size overrides it"
    what = f"{file}: {count} position embeddings do not form a square grid"
    raise UserError("weights.grid", what, "give --img-size [HEIGHT,WIDTH]")


def _is_sincos(table: Tensor, grid: tuple[int, int]) -> bool:
    if table.shape[-1] % 4 or table.shape[1] != 1 + grid[0] * grid[1]:
        return False
    return torch.allclose(sincos_positions(table.shape[-1], grid), table.float(), atol=2e-3)  # as fp16 rounds


def named(
    dim: int,
    depth: int,
    heads: int,
    args: dict[str, Any],
    names: Mapping[tuple[int, int, int], str] = NAMED,
    base: str = "vit_base_patch16_224",
) -> tuple[str, dict[str, Any]]:
    """One of the named sizes, or the base one with what differs; `args` are timm's that no name decides."""
    if name := names.get((dim, depth, heads)):
        return name, args
    return base, args | {"embed_dim": dim, "depth": depth, "num_heads": heads}


def _one_or_two(height: int, width: int) -> int | list[int]:
    return height if height == width else [height, width]
