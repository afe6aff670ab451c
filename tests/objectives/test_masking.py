"""Masks are functions of a sample's key: exact in number, the same in any batch, and of the kind that was asked for."""

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from support.errors import raises

from mae_kit.encoders.patches import visible_indices
from mae_kit.objectives.masking import (
    LONGEST,
    block_mask,
    blocks_fit,
    blockwise_mask,
    check_both_left,
    grid_mask,
    hidden_units,
    hide_smallest_last,
    mask_generator,
    random_mask,
    visible_count,
)
from mae_kit.randomness import combine

KINDS = {"random": random_mask, "block": block_mask, "grid": grid_mask}


def keys(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(combine(seed, np.arange(count)).view(np.int64).copy())


@given(
    rows=st.integers(1, 16),
    columns=st.integers(1, 16),
    ratio=st.floats(0.05, 0.95),
    kind=st.sampled_from(["random", "block"]),
)
def test_the_count_is_exact_in_every_row(rows: int, columns: int, ratio: float, kind: str):
    hidden = KINDS[kind](keys(5), (rows, columns), ratio)
    assert hidden.shape == (5, rows * columns)
    assert (~hidden).sum(dim=1).tolist() == [visible_count(rows * columns, ratio)] * 5


@pytest.mark.parametrize("patches, ratio, visible", [(196, 0.75, 49), (64, 0.75, 16), (196, 0.9, 19), (256, 0.6, 102)])
def test_counts_round_as_in_the_original(patches: int, ratio: float, visible: int):
    assert visible_count(patches, ratio) == int(patches * (1 - ratio)) == visible


@pytest.mark.parametrize(
    "units, ratio, hidden", [(36, 0.6, 22), (25, 0.8, 20), (100, 0.9, 90), (100, 0.07, 7), (16, 0.6, 10), (4, 0.5, 2)]
)
def test_units_round_up_but_for_what_is_whole(units: int, ratio: float, hidden: int):
    assert hidden_units(units, ratio) == hidden


@pytest.mark.parametrize("part", [0, 16, -8])
def test_all_or_nothing_is_refused(part: int):
    with raises("objective.mask_ratio"):
        check_both_left(part, 16, 0.9, "about .75")
    check_both_left(1, 2, 0.5, "about .75")


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_depends_on_its_key_alone(kind: str):
    some = keys(40)
    whole = KINDS[kind](some, (8, 8), 0.75)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    torch.rand(3)  # the state of torch's generator is no matter
    assert torch.equal(KINDS[kind](some[order], (8, 8), 0.75), whole[order])
    assert torch.equal(torch.cat([KINDS[kind](part, (8, 8), 0.75) for part in some.split(7)]), whole)


@pytest.mark.parametrize("mask", [random_mask, block_mask])
def test_other_keys_hide_other_patches(mask):
    hidden = mask(keys(200), (14, 14), 0.75)
    assert len(torch.unique(hidden, dim=0)) > 190


def test_random_masks_hide_every_patch_alike():
    hidden = random_mask(keys(8000), (4, 8), 0.75).double()
    assert (hidden.mean(dim=0) - 0.75).abs().max() < 5 * (0.75 * 0.25 / 8000) ** 0.5
    pairs = torch.corrcoef(hidden.T) - torch.eye(32)
    assert (pairs + 1 / 31).fill_diagonal_(0).abs().max() < 5 / 8000**0.5, "drawn without replacement: -1/(n-1)"


def pieces(hidden: torch.Tensor) -> float:
    """Connected pieces of the visible part, a mean over images."""
    return float(np.mean([ndimage.label(~image)[1] for image in hidden.numpy()]))  # pyright: ignore[reportIndexIssue]


def test_block_masks_are_beits_blocks_of_an_exact_count():
    """MAE's table 1f takes them from BEiT: 147 of 196 patches, blocks of 16 or more."""
    hidden = block_mask(keys(2000), (14, 14), 0.75)
    beit = blockwise_mask(keys(2000), (14, 14), 147, 16)
    assert (hidden.sum(dim=1) == 147).all() and not (beit & ~hidden).any(), "nothing of the blocks is taken away"
    shaped, theirs = hidden.reshape(-1, 14, 14), beit.reshape(-1, 14, 14)
    corners = [float(mask[:, ::13, ::13].float().mean()) for mask in (shaped, theirs)]
    assert corners[0] == pytest.approx(corners[1], abs=0.01) and corners[1] == pytest.approx(0.15, abs=0.02)
    assert pieces(shaped) == pytest.approx(pieces(theirs), abs=0.2) == pytest.approx(3.0, abs=0.3)


def test_block_masks_of_a_row_of_patches_are_refused():
    with raises("objective.blocks"):
        mask_generator("block", (1, 40), 0.75)


def test_grid_masks_keep_one_patch_of_four():
    hidden = grid_mask(keys(2), (4, 6), 0.75)
    assert torch.equal(hidden[0], hidden[1])
    wanted = [[False, True] * 3, [True] * 6] * 2
    assert hidden[0].reshape(4, 6).tolist() == wanted


@pytest.mark.parametrize(("grid", "ratio"), [((4, 4), 0.5), ((5, 4), 0.75), ((4, 7), 0.75)])
def test_a_grid_that_cannot_be(grid: tuple[int, int], ratio: float):
    with raises("objective.mask"):
        grid_mask(keys(1), grid, ratio)


def test_the_smallest_noise_stays_visible():
    noise = torch.tensor([[0.5, 0.1, 0.9, 0.2], [0.3, 0.3, 0.3, 0.3]])
    assert hide_smallest_last(noise, 2).tolist() == [[True, False, True, False], [False, False, True, True]]


def test_visible_indices_are_the_visible_patches():
    hidden = random_mask(keys(20), (5, 6), 0.7)
    places = visible_indices(hidden)
    assert places.shape == (20, visible_count(30, 0.7))
    for row, visible in zip(hidden, places, strict=True):
        assert visible.tolist() == (~row).nonzero().flatten().tolist()


def drawn_one_by_one(dice: random.Random, rows: int, columns: int, most: int, smallest: int) -> np.ndarray:
    """Bool [rows, columns]: BEiT's blocks as its paper tells them (algorithm 1, with the released bounds)."""
    hidden, misses = np.zeros((rows, columns), bool), 0
    while hidden.sum() < most and misses < 10:
        left = most - hidden.sum()
        area, aspect = dice.uniform(smallest, left), math.exp(dice.uniform(-math.log(LONGEST), math.log(LONGEST)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        misses += 1
        if height < rows and width < columns:
            top, start = dice.randint(0, rows - height), dice.randint(0, columns - width)
            block = hidden[top : top + height, start : start + width]
            if 0 < block.size - block.sum() <= left:
                block[:], misses = True, 0
    return hidden


@pytest.mark.parametrize(("grid", "most", "smallest"), [((14, 14), 75, 16), ((6, 10), 24, 5)])
def test_blockwise_masks_are_distributed_as_if_drawn_one_by_one(grid: tuple[int, int], most: int, smallest: int):
    dice = random.Random(1)
    theirs = torch.from_numpy(np.stack([drawn_one_by_one(dice, *grid, most, smallest) for _ in range(2000)])).flatten(1)
    ours = blockwise_mask(keys(2000), grid, most, smallest)
    counts = ours.sum(dim=1)
    assert counts.min() > 0 and counts.max() == most, "a bound, which is met"
    for level in range(most - 3, most + 1):
        shares = [float((part.sum(dim=1) >= level).float().mean()) for part in (ours, theirs)]
        assert shares[0] == pytest.approx(shares[1], abs=0.05)
    assert (ours.float().mean(dim=0) - theirs.float().mean(dim=0)).abs().max() < 0.06, "each patch as often"


def boxes(hidden: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Height and width of what is hidden in each row: float [b 2]."""
    shaped = hidden.unflatten(1, grid)
    return torch.stack([shaped.any(dim=2).sum(dim=1), shaped.any(dim=1).sum(dim=1)], dim=1).float()


def test_a_first_block_has_the_area_and_the_aspect_that_were_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mae_kit.objectives.masking.BLOCKS", 1)
    hidden = blockwise_mask(keys(4000), (40, 40), 300, 100)
    found = boxes(hidden[hidden.any(dim=1)], (40, 40))
    area, aspect = found.prod(dim=1), (found[:, 0] / found[:, 1]).log()
    assert len(found) > 3600 and torch.equal(area, hidden[hidden.any(dim=1)].sum(dim=1).float()), "whole rectangles"
    assert area.min() > 85 and area.max() <= 300 and float(area.mean()) == pytest.approx(198, abs=5), "uniform"
    assert float(aspect.mean()) == pytest.approx(0, abs=0.05) and aspect.abs().max() < math.log(LONGEST) + 0.15
    assert float(aspect.std()) == pytest.approx(2 * math.log(LONGEST) / 12**0.5, abs=0.05), "log-uniform"


@pytest.mark.parametrize(
    ("grid", "smallest", "fit"),
    [((14, 14), 16, True), ((4, 4), 2, True), ((1, 40), 1, False), ((4, 32), 16, False), ((4, 32), 4, True)],
)
def test_blocks_that_are_too_long_for_most_images_are_found_out(grid: tuple[int, int], smallest: int, fit: bool):
    most = int(grid[0] * grid[1] * 0.4)
    assert blocks_fit(grid, most, smallest) == fit
    assert (blockwise_mask(keys(1000), grid, most, smallest).any(dim=1).float().mean() > 0.85) == fit


def test_blockwise_masks_depend_on_their_keys_alone():
    some = keys(40)
    whole = blockwise_mask(some, (8, 8), 25, 4)
    assert torch.equal(torch.cat([blockwise_mask(part, (8, 8), 25, 4) for part in some.split(7)]), whole)
    assert len(whole.unique(dim=0)) == 40


def test_squares_are_hidden_at_once():
    """Pixio's 4 x 4 patches: a quarter of the squares is visible, rounded down."""
    hide = mask_generator("random", (12, 16), 0.75, 4)
    hidden = hide(keys(50))
    squares = hidden.unflatten(1, (3, 4, 4, 4)).transpose(2, 3).flatten(3)
    assert torch.equal(squares.any(dim=3), squares.all(dim=3))
    assert (~squares.any(dim=3)).sum(dim=(1, 2)).tolist() == [3] * 50 and hide.visible == 48
    assert len(hidden.unique(dim=0)) > 30


@pytest.mark.parametrize(("kind", "unit"), [("block", 4), ("grid", 2), ("random", 5), ("random", 0)])
def test_squares_that_no_mask_has(kind: Any, unit: int):
    with raises("objective.mask_unit"):
        mask_generator(kind, (12, 16), 0.75, unit)
