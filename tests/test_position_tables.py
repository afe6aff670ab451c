"""Position tables: what the sin-cos table says, and resampling that keeps what it must."""

import math

import pytest
import torch

from mae_kit.position_tables import resample_positions, sincos_positions


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
