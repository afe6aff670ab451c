"""Position tables: what the sin-cos table says, and resampling that keeps what it must."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import interpolate, optimize

from mae_kit.encoders.position_embeddings import resample_offsets, resample_positions, sincos_positions


def test_a_row_of_the_table_by_hand():
    """Column in the first half of the width, row in the second, each as all sines, then all cosines."""
    table = sincos_positions(8, (3, 5), prefix=2)
    assert table.shape == (1, 17, 8) and table.dtype == torch.float32
    assert not table[0, :2].any()
    row, column = 2, 3
    waves = [1.0, 1 / 100]
    wanted = [f(at * wave) for at in (column, row) for f in (math.sin, math.cos) for wave in waves]
    torch.testing.assert_close(table[0, 2 + row * 5 + column], torch.tensor(wanted))


def test_every_place_is_different():
    table = sincos_positions(64, (14, 9), prefix=0)[0]
    assert len(torch.unique(table, dim=0)) == 14 * 9


def test_width_must_be_a_multiple_of_four():
    with pytest.raises(ValueError, match="multiple of 4, not 6"):
        sincos_positions(6, (2, 2))


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_resampling_keeps_prefix_and_constants(prefix: int):
    table = torch.randn(1, prefix + 12, 4)
    table[:, prefix:] = torch.tensor([1.0, -2.0, 0.5, 0.0])
    bigger = resample_positions(table, (3, 4), (6, 5), prefix)
    assert bigger.shape == (1, prefix + 30, 4)
    assert torch.equal(bigger[:, :prefix], table[:, :prefix])
    torch.testing.assert_close(bigger[:, prefix:], table[:, -1:].expand(1, 30, 4))
    assert resample_positions(table, (3, 4), (3, 4), prefix) is table


def test_rows_and_columns_are_not_mixed_up():
    """A table that rises along the columns only stays so on a rectangle of another shape."""
    columns = torch.arange(6.0).repeat(3)[None, :, None]
    resampled = resample_positions(columns, (3, 6), (5, 12), prefix=0).reshape(5, 12)
    torch.testing.assert_close(resampled, resampled[:1].expand(5, 12))
    assert (resampled[0].diff() > 0).all()


def test_half_precision_is_kept():
    assert resample_positions(torch.randn(1, 5, 4).bfloat16(), (2, 2), (3, 3)).dtype == torch.bfloat16


def places(old: int, new: int) -> np.ndarray:
    """Offsets 0, 1, 1 + q, 1 + q + q^2, ... and their opposites, the last being the new grid's last."""
    ratio: Any = optimize.brentq(lambda q: sum(q**i for i in range(old - 1)) - (new - 1), 1.01, 1.5)
    side = np.cumsum(ratio ** np.arange(old - 1))
    return np.concatenate([-side[::-1], [0], side])


@pytest.mark.parametrize(("old", "new"), [((5, 5), (6, 7)), ((14, 14), (24, 24)), ((3, 5), (3, 8))])
def test_offsets_are_on_a_cubic_spline_over_a_geometric_progression(old: tuple[int, int], new: tuple[int, int]):
    sides = [2 * count - 1 for count in old]
    table = torch.randn(sides[0] * sides[1] + 3, 2, generator=torch.Generator().manual_seed(0))
    found = resample_offsets(table, old, new)
    expected = table[:-3].reshape(*sides, 2).double().numpy()
    for axis, (before, after) in enumerate(zip(old, new, strict=True)):
        if before != after:
            at = places(before, after)
            spline = interpolate.make_interp_spline(at, expected, 3, axis=axis)
            expected = spline(np.clip(np.arange(1 - after, after), at[0], at[-1]))
    torch.testing.assert_close(found[:-3].double(), torch.from_numpy(expected).flatten(0, 1), rtol=1e-3, atol=1e-3)
    assert torch.equal(found[-3:], table[-3:]), "to, from and between class tokens"


def test_near_offsets_stay_near():
    """Where a table says how near two patches are, a larger grid says so too, and a smaller one has no farther ones."""
    down, across = (torch.arange(-6.0, 7) ** 2 for _ in range(2))
    table = torch.cat([(-(down[:, None] + across) / 20).exp().flatten(), torch.zeros(3)])[:, None]
    larger, smaller = (
        resample_offsets(table, (7, 7), (side, side))[:-3].unflatten(0, (2 * side - 1, -1)) for side in (10, 4)
    )
    assert larger[9, 9, 0] == pytest.approx(1, abs=1e-6) and larger[9, 10, 0] == pytest.approx(
        math.exp(-1 / 20), abs=0.02
    )
    torch.testing.assert_close(smaller[..., 0], table[:-3, 0].unflatten(0, (13, 13))[3:10, 3:10], rtol=0, atol=0.02)
    assert resample_offsets(table, (7, 7), (7, 7)) is table
    assert resample_offsets(table[:12], (2, 2), (1, 3)).shape == (1 * 5 + 3, 1)
