"""Tables of position embeddings: fixed sin-cos ones, and resampling to another grid. Pure functions."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def sincos_positions(dim: int, grid: tuple[int, int], prefix: int = 1) -> Float[Tensor, "1 n d"]:
    """MAE's 2-D table (util/pos_embed.py): the first half of the width encodes the column, the second the row.

    Args:
        dim: Embedding width, a multiple of 4.
        grid: Rows and columns of patches.
        prefix: Prefix tokens in front, whose rows are zeros.

    Returns:
        fp32 [1, prefix + rows * columns, dim]; each half is [sin(all), cos(all)].

    Raises:
        ValueError: dim is no multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"sin-cos positions need a width that is a multiple of 4, not {dim}")
    rows, columns = grid
    omega = 1.0 / 10000 ** (torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    halves = [axis.flatten()[:, None].double() * omega for axis in (x, y)]
    table = torch.cat([wave for half in halves for wave in (half.sin(), half.cos())], dim=1)
    return torch.cat([torch.zeros(prefix, dim), table.float()])[None]


def resample_positions(
    table: Float[Tensor, "1 n d"], old_grid: tuple[int, int], new_grid: tuple[int, int], prefix: int = 1
) -> Float[Tensor, "1 m d"]:
    """Resample a table to another grid, bicubic without antialias as MAE's fine-tuning does; prefix rows are kept.

    timm's `resample_abs_pos_embed` uses antialias, which gives other numbers when the grid shrinks.
    """
    if old_grid == new_grid:
        return table
    kept, patches = table[:, :prefix], table[:, prefix:]
    image = patches.reshape(1, *old_grid, -1).permute(0, 3, 1, 2)
    image = F.interpolate(image.float(), size=new_grid, mode="bicubic", align_corners=False)
    return torch.cat([kept, image.permute(0, 2, 3, 1).flatten(1, 2).to(table.dtype)], dim=1)
