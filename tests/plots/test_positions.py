"""How alike position embeddings are, of tables whose answer is known."""

import math

import torch

from mae_kit.encoders.position_embeddings import sincos_positions
from mae_kit.plots.positions import position_similarity, similarity_by_offset

GRID, DIM = (3, 5), 32


def cosine(rows: int, columns: int) -> float:
    """Of two sin-cos embeddings so far apart: the mean of cos(omega * offset) over both axes and all frequencies."""
    waves = [10000 ** (-i / (DIM / 4)) for i in range(DIM // 4)]
    return sum(math.cos(wave * offset) for wave in waves for offset in (rows, columns)) / (2 * len(waves))


def test_sin_cos_positions_depend_on_the_offset_alone():
    similarity = position_similarity(sincos_positions(DIM, GRID, prefix=2), GRID)
    places = [(row, column) for row in range(3) for column in range(5)]
    wanted = torch.tensor([[cosine(a - c, b - d) for c, d in places] for a, b in places])
    torch.testing.assert_close(similarity.reshape(15, 15), wanted, rtol=0, atol=1e-5)


def test_over_the_offsets():
    columns, rows = similarity_by_offset(position_similarity(sincos_positions(DIM, GRID), GRID))
    torch.testing.assert_close(torch.tensor(columns), torch.tensor([cosine(0, x) for x in range(5)]))
    torch.testing.assert_close(torch.tensor(rows), torch.tensor([cosine(y, 0) for y in range(3)]))


def test_any_table_is_symmetric_and_alike_itself():
    flat = position_similarity(torch.randn(1, 16, 8) * 9, GRID).reshape(15, 15)
    torch.testing.assert_close(flat, flat.T)
    torch.testing.assert_close(flat.diagonal(), torch.ones(15))
    assert flat.abs().max() < 1.001 and flat.min() < 0
