"""Masks are functions of a sample's key: exact in number, the same in any batch, and of the kind that was asked for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mae_kit.errors import UserError
from mae_kit.masks import MASKS, block_mask, grid_mask, hide_smallest_last, random_mask, visible_count, visible_indices
from mae_kit.randomness import combine


def keys(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(combine(seed, np.arange(count)).view(np.int64).copy())


@given(
    rows=st.integers(1, 16),
    columns=st.integers(1, 16),
    ratio=st.floats(0.05, 0.95),
    kind=st.sampled_from(["random", "block"]),
)
def test_the_count_is_exact_in_every_row(rows: int, columns: int, ratio: float, kind: str):
    hidden = MASKS[kind](keys(5), (rows, columns), ratio)
    assert hidden.shape == (5, rows * columns)
    assert (~hidden).sum(dim=1).tolist() == [visible_count(rows * columns, ratio)] * 5


@pytest.mark.parametrize("patches, ratio, visible", [(196, 0.75, 49), (64, 0.75, 16), (196, 0.9, 19), (256, 0.6, 102)])
def test_counts_round_as_in_the_original(patches: int, ratio: float, visible: int):
    assert visible_count(patches, ratio) == int(patches * (1 - ratio)) == visible


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_depends_on_its_key_alone(kind: str):
    some = keys(40)
    whole = MASKS[kind](some, (8, 8), 0.75)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    torch.rand(3)  # the state of torch's generator is no matter
    assert torch.equal(MASKS[kind](some[order], (8, 8), 0.75), whole[order])
    assert torch.equal(torch.cat([MASKS[kind](part, (8, 8), 0.75) for part in some.split(7)]), whole)


@pytest.mark.parametrize("mask", [random_mask, block_mask])
def test_other_keys_hide_other_patches(mask):
    hidden = mask(keys(200), (14, 14), 0.75)
    assert len(torch.unique(hidden, dim=0)) > 190


def test_random_masks_hide_every_patch_alike():
    hidden = random_mask(keys(8000), (4, 8), 0.75).double()
    assert (hidden.mean(dim=0) - 0.75).abs().max() < 5 * (0.75 * 0.25 / 8000) ** 0.5
    pairs = torch.corrcoef(hidden.T) - torch.eye(32)
    assert (pairs + 1 / 31).fill_diagonal_(0).abs().max() < 5 / 8000**0.5, "drawn without replacement: -1/(n-1)"


def test_block_masks_are_one_block():
    for hidden in block_mask(keys(50), (14, 14), 0.75).reshape(-1, 14, 14):
        rows, columns = hidden.any(dim=1).nonzero().flatten(), hidden.any(dim=0).nonzero().flatten()
        height, width = int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
        assert hidden.sum() > 0.85 * height * width, "nearly fills its bounding box"


def test_block_masks_differ_in_place():
    centres = block_mask(keys(500), (14, 14), 0.5).reshape(-1, 14, 14).double().mean(dim=0)
    assert centres.min() > 0.1, "a corner is hidden now and then"
    assert centres[0, 0] < centres[0, 7] < centres[7, 7] < 1, "the middle nearly always"


def test_grid_masks_keep_one_patch_of_four():
    hidden = grid_mask(keys(2), (4, 6), 0.75)
    assert torch.equal(hidden[0], hidden[1])
    wanted = [[False, True] * 3, [True] * 6] * 2
    assert hidden[0].reshape(4, 6).tolist() == wanted


@pytest.mark.parametrize(("grid", "ratio"), [((4, 4), 0.5), ((5, 4), 0.75), ((4, 7), 0.75)])
def test_a_grid_that_cannot_be(grid: tuple[int, int], ratio: float):
    with pytest.raises(UserError, match="grid mask hides 75% of an even grid of patches"):
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
