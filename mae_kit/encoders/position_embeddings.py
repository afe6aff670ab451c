"""Position embeddings: fixed sin-cos tables, and resampling to another grid."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def sincos_positions(dim: int, grid: tuple[int, int], prefix: int = 1) -> Float[Tensor, "1 n d"]:
    """Make MAE's 2-D table (util/pos_embed.py): the first half of the width encodes the column, the second the row.

    Args:
        dim: Embedding width, a multiple of 4.
        grid: Rows and columns of patches.
        prefix: Number of prefix tokens, whose rows are zeros.

    Returns:
        fp32 [1, prefix + rows * columns, dim]; each half is [sin(all), cos(all)].

    Raises:
        ValueError: dim is not a multiple of 4.
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


def resample_offsets(
    table: Float[Tensor, "r h"], old_grid: tuple[int, int], new_grid: tuple[int, int]
) -> Float[Tensor, "q h"]:
    """Resample a table of relative positions to another grid, as BEiT does for fine-tuning (run_class_finetuning.py),
    and SimMIM for Swin's windows (utils.py).

    The old offsets are spread over the new ones at distances that grow as a geometric progression, so that near patches
    stay as near as they were, and a cubic spline goes through them. On a smaller grid the far offsets are left out.

    Args:
        table: A row for each offset of two patches, rows of the image first; then those that are kept, BEiT's three of
            what goes to, from and between class tokens.
        old_grid: Rows and columns of patches that it was trained with.
        new_grid: Rows and columns of patches that it is needed for.
    """
    if old_grid == new_grid:
        return table
    down, across = (_spline(old, new) for old, new in zip(old_grid, new_grid, strict=True))
    sides = 2 * old_grid[0] - 1, 2 * old_grid[1] - 1
    offsets, kept = table[: sides[0] * sides[1]], table[sides[0] * sides[1] :]
    image = offsets.double().unflatten(0, sides)
    return torch.cat([torch.einsum("yu,xv,uvh->yxh", down, across, image).flatten(0, 1).to(table.dtype), kept])


def _spline(old: int, new: int) -> Float[Tensor, "q r"]:
    """Compute the weights of old offsets for each new one: a cubic not-a-knot spline."""
    if old == new:
        return torch.eye(2 * old - 1, dtype=torch.float64)
    places = _spread(old - 1, new - 1)
    wanted = torch.arange(1.0 - new, new, dtype=torch.float64).clamp(places[0], places[-1])
    degree, reach = min(3, len(places) - 1), places[-1].clamp(min=1.0)
    knots = places[2:-2] / reach if degree == 3 else places[:0]
    basis, asked = (_powers(x / reach, knots, degree) for x in (places, wanted))
    return torch.linalg.solve(basis, asked, left=False)


def _powers(x: Float[Tensor, " n"], knots: Float[Tensor, " k"], degree: int) -> Float[Tensor, "n b"]:
    """Evaluate the spline's basis: polynomials, and a truncated cubic for each knot."""
    whole = x[:, None] ** torch.arange(degree + 1)
    return torch.cat([whole, (x[:, None] - knots).clamp(min=0) ** 3], dim=1)


def _spread(count: int, reach: int) -> Float[Tensor, " r"]:
    """Place the offsets -count..count with geometrically growing steps, the last one at `reach`."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        low, high = (low, ratio) if sum(ratio**i for i in range(count)) > reach else (ratio, high)
    steps = torch.tensor(low, dtype=torch.float64) ** torch.arange(count)
    side = steps.cumsum(0)
    return torch.cat([-side.flip(0), torch.zeros(1, dtype=torch.float64), side])
