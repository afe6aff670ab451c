"""Which patches are hidden: pure functions from keys to `hidden`, Bool [b n], True = hidden."""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mae_kit.errors import UserError
from mae_kit.randomness import MASK, uniform

MaskKind = Literal["random", "block", "grid"]
LONGEST = 1 / 0.3  # a block's longer side over its shorter one (BEiT)
MISSES = 10  # blocks in a row that do not fit, after which an image is left as it is (BEiT)
TRIALS, SERVED = 200, 0.9  # images by which a block is judged, and how many of them must have something hidden
BLOCKS = 48  # that are tried: none of 100,000 images of 14 x 14 patches needs more


def hide_smallest_last(noise: Float[Tensor, "b n"], visible: int) -> Bool[Tensor, "b n"]:
    """Keep the `visible` patches with the smallest noise in each row, hide the rest (MAE, models_mae.py)."""
    rank = noise.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    return rank >= visible


def visible_count(patches: int, mask_ratio: float) -> int:
    """How many patches stay visible: rounded down, as in MAE."""
    return int(patches * (1 - mask_ratio))


def hidden_units(units: int, mask_ratio: float) -> int:
    """How many units are hidden: rounded up, as in SimMIM (data_simmim.py); 100 at .07 are 7.000000000000001."""
    return math.ceil(round(units * mask_ratio, 9))


def must_leave_both(part: int, count: int, mask_ratio: float, choice: str) -> None:
    """Refuse a share that hides all or nothing.

    Args:
        part: How many it hides, or leaves visible.
        count: Of how many.
        mask_ratio: The share.
        choice: What to choose instead.

    Raises:
        UserError: The part is none or all of them.
    """
    if not 0 < part < count:
        raise UserError(
            "objective.mask_ratio", f"mask_ratio {mask_ratio} of {count} leaves none on one side", f"choose {choice}"
        )


def random_mask(keys: Int64[Tensor, " b"], grid: tuple[int, int], mask_ratio: float) -> Bool[Tensor, "b n"]:
    """Hide a random share of the patches, the same count in every row (MAE, section 3)."""
    n = grid[0] * grid[1]
    return hide_smallest_last(uniform(keys, MASK, n), visible_count(n, mask_ratio))


def block_mask(keys: Int64[Tensor, " b"], grid: tuple[int, int], mask_ratio: float) -> Bool[Tensor, "b n"]:
    """Hide one block around a random center, the same count in every row (MAE's "block" ablation, figure 6).

    The block is the set of patches nearest to the center in the larger of the two relative distances.
    """
    rows, columns = grid
    center = uniform(keys, MASK, 2 + rows * columns)
    y = (torch.arange(rows, device=keys.device) + 0.5) / rows
    x = (torch.arange(columns, device=keys.device) + 0.5) / columns
    far = torch.maximum((y[None, :, None] - center[:, 0, None, None]).abs(), (x - center[:, 1, None, None]).abs())
    tie_break = center[:, 2:] * 1e-4
    return hide_smallest_last(-(far.flatten(1) + tie_break), visible_count(rows * columns, mask_ratio))


def grid_mask(keys: Int64[Tensor, " b"], grid: tuple[int, int], mask_ratio: float) -> Bool[Tensor, "b n"]:
    """Keep one patch of every 2x2 and hide the other three (MAE's "grid" ablation, figure 6); ratio 75% alone.

    Raises:
        UserError: Another ratio than .75, or an odd grid.
    """
    rows, columns = grid
    if mask_ratio != 0.75 or rows % 2 or columns % 2:
        what = f"a grid mask hides 75% of an even grid of patches, not {mask_ratio:.0%} of {rows}x{columns}"
        raise UserError(
            "objective.mask", what, "choose mask random or block, or mask_ratio 0.75 and another image size"
        )
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    hidden = ((y % 2 == 1) | (x % 2 == 1)).flatten().to(keys.device)
    return hidden.expand(len(keys), -1)


def unit_mask(
    keys: Int64[Tensor, " b"], grid: tuple[int, int], unit: tuple[int, int], visible: int
) -> Bool[Tensor, "b n"]:
    """Hide random units of several patches, the same count in every row (SimMIM).

    Args:
        keys: Of the samples.
        grid: Rows and columns of patches.
        unit: Rows and columns of patches in a unit; they divide the grid.
        visible: How many of the units are not hidden.
    """
    units = grid[0] // unit[0], grid[1] // unit[1]
    hidden = hide_smallest_last(uniform(keys, MASK, units[0] * units[1]), visible).unflatten(1, units)
    return hidden.repeat_interleave(unit[0], 1).repeat_interleave(unit[1], 2).flatten(1)


def blockwise_mask(keys: Int64[Tensor, " b"], grid: tuple[int, int], most: int, smallest: int) -> Bool[Tensor, "b n"]:
    """Hide blocks that may overlap, until `most` patches are hidden or none fits (BEiT, masking_generator.py).

    A block has an area uniform between `smallest` and what is left to hide, and a log-uniform aspect; it is shorter
    than the grid both ways, and hides something new but not too much. So `most` is a bound, which most rows meet.

    Args:
        keys: Of the samples.
        grid: Rows and columns of patches.
        most: Patches that are hidden at most (BEiT: 75 of 196).
        smallest: Patches in a block at least, but for the last ones, which fill up (BEiT: 16).
    """
    rows, columns = grid
    y, x = (torch.arange(side, device=keys.device) for side in grid)
    hidden = torch.zeros(len(keys), rows, columns, dtype=torch.bool, device=keys.device)
    left, misses = torch.full_like(keys, most), torch.zeros_like(keys)
    for draws in uniform(keys, MASK, 4 * BLOCKS).split(4, dim=1):
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


def blocks_fit(grid: tuple[int, int], most: int, smallest: int) -> bool:
    """Whether `blockwise_mask` hides something in nearly every image: it tries but a few blocks, which may all be too
    long for a narrow grid.
    """
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
        must_leave_both(visible, grid[0] * grid[1], mask_ratio, suggestion)
        super().__init__(grid, visible)
        self.mask_ratio = mask_ratio

    def __call__(self, seeds: Int64[Tensor, " b"]) -> Bool[Tensor, "b n"]:
        return random_mask(seeds, self.grid, self.mask_ratio)


class BlockMask(RandomMask):
    """Hides BEiT's blocks, the same count in every row (MAE's ablation of masks, figure 6 and table 1f)."""

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
    """Hides random units of several patches, the same count in every row (SimMIM, Hiera).

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
        must_leave_both(visible, grid[0] * grid[1] // size, mask_ratio, "about .6, or a smaller unit")
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
        must_leave_both(min(most, visible_count(patches, mask_ratio)), patches, mask_ratio, "about .4")
        if not (0 < smallest <= most and blocks_fit(grid, most, smallest)):
            what = f"blocks of {smallest} to {most} patches do not fit into {grid[0]}x{grid[1]}"
            raise UserError("objective.blocks", what, "choose a smaller smallest_block above 0, or a larger image")
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


def mask_generator(kind: MaskKind, grid: tuple[int, int], mask_ratio: float) -> MaskGenerator:
    """Make MAE's masks by name.

    Raises:
        UserError: The ratio hides all or nothing, or a grid mask does not exist for it.
    """
    return _KINDS[kind](grid, mask_ratio, "about .75")


def visible_indices(hidden: Bool[Tensor, "b n"], visible: int | None = None) -> Int64[Tensor, "b v"]:
    """Positions of the visible patches of each row, ascending.

    Args:
        hidden: As many in every row.
        visible: The count of the others in a row; None to count them, which waits for the device and breaks a compiled
            graph.
    """
    if visible is None:
        visible = int((~hidden[0]).sum())
    return hidden.to(torch.uint8).argsort(dim=1, stable=True)[:, :visible]
