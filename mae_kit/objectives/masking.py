"""Which patches are hidden: functions of the samples' seeds to `hidden`, Bool [b n], True = hidden."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mae_kit.errors import UserError
from mae_kit.randomness import CORRUPTION, MASK, uniform

MaskKind = Literal["random", "block", "grid"]
LONGEST = 1 / 0.3  # a block's longer side over its shorter one (BEiT)
MISSES = 10  # failed blocks in a row after which an image is done (BEiT)
TRIALS, SERVED = 200, 0.9  # images to test blocks on, and the fraction that must have something hidden
BLOCKS = 48  # blocks tried: none of 100,000 images of 14 x 14 patches needs more


def hide_smallest_last(noise: Float[Tensor, "b n"], visible: int) -> Bool[Tensor, "b n"]:
    """Keep the `visible` patches with the smallest noise in each row, hide the rest (MAE, models_mae.py)."""
    rank = noise.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    return rank >= visible


def visible_count(patches: int, mask_ratio: float) -> int:
    """Count the visible patches: rounded down, as in MAE."""
    return int(patches * (1 - mask_ratio))


def hidden_units(units: int, mask_ratio: float) -> int:
    """Count the hidden units: rounded up, as in SimMIM (data_simmim.py); 100 * .07 is 7.000000000000001."""
    return math.ceil(round(units * mask_ratio, 9))


def check_both_left(part: int, count: int, mask_ratio: float, choice: str) -> None:
    """Refuse a ratio that hides all or nothing.

    Args:
        part: How many patches it hides, or leaves visible.
        count: How many patches there are.
        mask_ratio: The ratio.
        choice: A ratio to suggest instead.

    Raises:
        UserError: The part is none or all of them.
    """
    if not 0 < part < count:
        what = f"mask_ratio {mask_ratio} hides none of {count}, or all of them"
        raise UserError("objective.mask_ratio", what, f"choose {choice}")


def random_mask(seeds: Int64[Tensor, " b"], grid: tuple[int, int], mask_ratio: float) -> Bool[Tensor, "b n"]:
    """Hide random patches, the same count in every row (MAE, section 3)."""
    n = grid[0] * grid[1]
    return hide_smallest_last(uniform(seeds, MASK, n), visible_count(n, mask_ratio))


def block_mask(seeds: Int64[Tensor, " b"], grid: tuple[int, int], mask_ratio: float) -> Bool[Tensor, "b n"]:
    """Hide BEiT's blocks, the same count in every row (MAE's block-wise masking, table 1f).

    Where the last block does not fit, the patches with most hidden neighbors complete the count.
    """
    patches = grid[0] * grid[1]
    visible = visible_count(patches, mask_ratio)
    hidden = blockwise_mask(seeds, grid, patches - visible, smallest_block(patches, patches - visible)).float()
    padded = F.pad(hidden.unflatten(1, grid), (1, 1, 1, 1))
    neighbors = padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1] + padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2]
    tie_break = uniform(seeds, CORRUPTION, patches)
    return hide_smallest_last(5 * hidden + neighbors.flatten(1) + tie_break, visible)


def smallest_block(patches: int, most: int) -> int:
    """Scale BEiT's smallest block, 16 of 14 x 14 patches, to another grid; at least one patch, `most` at most."""
    return max(1, min(most, round(patches * 16 / 14**2)))


def grid_mask(seeds: Int64[Tensor, " b"], grid: tuple[int, int], mask_ratio: float) -> Bool[Tensor, "b n"]:
    """Keep one patch of every 2x2 and hide the other three (MAE's "grid" ablation, figure 6); only at 75%.

    Raises:
        UserError: The ratio is not .75, or the grid is odd.
    """
    rows, columns = grid
    if mask_ratio != 0.75 or rows % 2 or columns % 2:
        what = f"a grid mask hides 75% of an even grid of patches, not {mask_ratio:.0%} of {rows}x{columns}"
        raise UserError(
            "objective.mask", what, "choose mask random or block, or mask_ratio 0.75 and another image size"
        )
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    hidden = ((y % 2 == 1) | (x % 2 == 1)).flatten().to(seeds.device)
    return hidden.expand(len(seeds), -1)


def unit_mask(
    seeds: Int64[Tensor, " b"], grid: tuple[int, int], unit: tuple[int, int], visible: int
) -> Bool[Tensor, "b n"]:
    """Hide random units of several patches, the same count in every row (SimMIM).

    Args:
        seeds: One for each sample.
        grid: Rows and columns of patches.
        unit: Rows and columns of patches in a unit; they divide the grid.
        visible: How many units are visible.
    """
    units = grid[0] // unit[0], grid[1] // unit[1]
    hidden = hide_smallest_last(uniform(seeds, MASK, units[0] * units[1]), visible).unflatten(1, units)
    return hidden.repeat_interleave(unit[0], 1).repeat_interleave(unit[1], 2).flatten(1)


def blockwise_mask(seeds: Int64[Tensor, " b"], grid: tuple[int, int], most: int, smallest: int) -> Bool[Tensor, "b n"]:
    """Hide blocks that may overlap, until `most` patches are hidden or no block fits (BEiT, masking_generator.py).

    The area of a block is uniform between `smallest` and what is left to hide, its aspect log-uniform; it is smaller
    than the grid in both directions and hides at least one new patch, but not too many. Most rows reach `most`.

    Args:
        seeds: One for each sample.
        grid: Rows and columns of patches.
        most: Largest number of hidden patches (BEiT: 75 of 196).
        smallest: Smallest area of a block, except the last ones (BEiT: 16).
    """
    rows, columns = grid
    y, x = (torch.arange(side, device=seeds.device) for side in grid)
    hidden = torch.zeros(len(seeds), rows, columns, dtype=torch.bool, device=seeds.device)
    left, misses = torch.full_like(seeds, most), torch.zeros_like(seeds)
    for draws in uniform(seeds, MASK, 4 * BLOCKS).split(4, dim=1):
        area, aspect, down, right = draws.unbind(dim=1)
        area, aspect = smallest + (left - smallest) * area, LONGEST ** (2 * aspect - 1)
        height, width = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
        inside_y = _between(y, (down * (rows - height + 1)).floor(), height)
        inside_x = _between(x, (right * (columns - width + 1)).floor(), width)
        new = inside_y[:, :, None] & inside_x[:, None, :] & ~hidden
        count = new.sum(dim=(1, 2))
        fits = (height < rows) & (width < columns) & (count > 0) & (count <= left) & (misses < MISSES)
        hidden = hidden | (new & fits[:, None, None])
        left, misses = left - count * fits, torch.where(fits, 0, misses + 1)
    return hidden.flatten(1)


def check_block_fits(grid: tuple[int, int], most: int, smallest: int) -> None:
    """Refuse blocks that do not fit.

    Raises:
        UserError: They hide nothing in more than a tenth of the images, or the smallest is larger than the largest.
    """
    if not (0 < smallest <= most and blocks_fit(grid, most, smallest)):
        what = f"blocks of {smallest} to {most} patches do not fit into a grid of {grid[0]}x{grid[1]}"
        raise UserError("objective.blocks", what, "choose a smaller smallest_block above 0, or a larger image")


def blocks_fit(grid: tuple[int, int], most: int, smallest: int) -> bool:
    """Check that `blockwise_mask` hides something in nearly every image; in a narrow grid all its tries may fail."""
    hidden = blockwise_mask(torch.arange(TRIALS, device="cpu"), grid, most, smallest)
    return bool(hidden.any(dim=1).float().mean() >= SERVED)


def _between(
    places: Int64[Tensor, " s"], start: Float[Tensor, " b"], length: Float[Tensor, " b"]
) -> Bool[Tensor, "b s"]:
    return (places >= start[:, None]) & (places < (start + length)[:, None])


class MaskGenerator:
    """Draws which patches are hidden: seeds of samples [b] to Bool [b n], True = hidden.

    Args:
        grid: Rows and columns of patches.
        visible: How many patches are visible in every row; None where the number varies.
    """

    def __init__(self, grid: tuple[int, int], visible: int | None):
        self.grid, self.visible = grid, visible

    def __call__(self, seeds: Int64[Tensor, " b"]) -> Bool[Tensor, "b n"]:
        raise NotImplementedError


class RandomMask(MaskGenerator):
    """Hides random patches, the same count in every row (MAE, section 3).

    Args:
        grid: Rows and columns of patches.
        mask_ratio: Fraction that is hidden; the visible count is rounded down.
        suggestion: A ratio to suggest instead of one that hides all or nothing.

    Raises:
        UserError: The ratio hides all or nothing.
    """

    def __init__(self, grid: tuple[int, int], mask_ratio: float, suggestion: str):
        visible = visible_count(grid[0] * grid[1], mask_ratio)
        check_both_left(visible, grid[0] * grid[1], mask_ratio, suggestion)
        super().__init__(grid, visible)
        self.mask_ratio = mask_ratio

    def __call__(self, seeds: Int64[Tensor, " b"]) -> Bool[Tensor, "b n"]:
        return random_mask(seeds, self.grid, self.mask_ratio)


class BlockMask(RandomMask):
    """Hides BEiT's blocks, the same count in every row (MAE's ablation of masks, figure 6 and table 1f)."""

    def __init__(self, grid: tuple[int, int], mask_ratio: float, suggestion: str):
        super().__init__(grid, mask_ratio, suggestion)
        patches = grid[0] * grid[1]
        most = patches - visible_count(patches, mask_ratio)
        check_block_fits(grid, most, smallest_block(patches, most))

    def __call__(self, seeds: Int64[Tensor, " b"]) -> Bool[Tensor, "b n"]:
        return block_mask(seeds, self.grid, self.mask_ratio)


class GridMask(RandomMask):
    """Hides three of every 2 x 2 patches (MAE's ablation of masks, figure 6 and table 1f)."""

    def __init__(self, grid: tuple[int, int], mask_ratio: float, suggestion: str):
        super().__init__(grid, mask_ratio, suggestion)
        grid_mask(torch.zeros(1, dtype=torch.int64), grid, mask_ratio)  # refuses other ratios and odd grids

    def __call__(self, seeds: Int64[Tensor, " b"]) -> Bool[Tensor, "b n"]:
        return grid_mask(seeds, self.grid, self.mask_ratio)


class UnitMask(MaskGenerator):
    """Hides random units of several patches, the same count in every row (SimMIM, Hiera, Pixio).

    Args:
        grid: Rows and columns of patches.
        unit: Rows and columns of patches in a unit; they divide the grid.
        visible: How many units are visible.
        mask_ratio: The fraction that was asked for, for the error message.

    Raises:
        UserError: No unit is visible, or all of them.
    """

    def __init__(self, grid: tuple[int, int], unit: tuple[int, int], visible: int, mask_ratio: float):
        size = unit[0] * unit[1]
        check_both_left(visible, grid[0] * grid[1] // size, mask_ratio, "about .6, or a smaller unit")
        super().__init__(grid, visible * size)
        self.unit, self.visible_units = unit, visible

    def __call__(self, seeds: Int64[Tensor, " b"]) -> Bool[Tensor, "b n"]:
        return unit_mask(seeds, self.grid, self.unit, self.visible_units)


class BlockwiseMask(MaskGenerator):
    """Hides blocks that may overlap, up to a number of patches that most rows reach (BEiT, masking_generator.py).

    Args:
        grid: Rows and columns of patches.
        most: Patches that are hidden at most.
        smallest: Patches of a block at least.
        mask_ratio: The fraction that was asked for, for the error message.

    Raises:
        UserError: The ratio hides all or nothing, or blocks of this size do not fit into the grid.
    """

    def __init__(self, grid: tuple[int, int], most: int, smallest: int, mask_ratio: float):
        super().__init__(grid, None)
        patches = grid[0] * grid[1]
        check_both_left(min(most, visible_count(patches, mask_ratio)), patches, mask_ratio, "about .4")
        check_block_fits(grid, most, smallest)
        self.most, self.smallest = most, smallest

    def __call__(self, seeds: Int64[Tensor, " b"]) -> Bool[Tensor, "b n"]:
        return blockwise_mask(seeds, self.grid, self.most, self.smallest)


class HideAll(MaskGenerator):
    """Hides every patch, where each one is predicted from those before it (iGPT)."""

    def __init__(self, grid: tuple[int, int]):
        super().__init__(grid, 0)

    def __call__(self, seeds: Int64[Tensor, " b"]) -> Bool[Tensor, "b n"]:
        return torch.ones(len(seeds), self.grid[0] * self.grid[1], dtype=torch.bool, device=seeds.device)


_KINDS: dict[MaskKind, type[RandomMask]] = {"random": RandomMask, "block": BlockMask, "grid": GridMask}


def mask_generator(kind: MaskKind, grid: tuple[int, int], mask_ratio: float, unit: int = 1) -> MaskGenerator:
    """Make MAE's masks by name, and Pixio's of squares of several patches.

    Raises:
        UserError: The ratio hides all or nothing, a grid mask does not exist for it, or squares are not for this kind
            of mask or grid.
    """
    if unit == 1:
        return _KINDS[kind](grid, mask_ratio, "about .75")
    if kind != "random" or unit < 1 or grid[0] % unit or grid[1] % unit:
        what = f"a {kind} mask of {grid[0]}x{grid[1]} patches has no units of {unit}x{unit}"
        raise UserError("objective.mask_unit", what, "choose mask random, and a divisor of the grid or 1")
    units = (grid[0] // unit) * (grid[1] // unit)
    return UnitMask(grid, (unit, unit), visible_count(units, mask_ratio), mask_ratio)
