"""Patches and back: the identity, in the original's order of values."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from support.errors import raises

from mae_kit.encoders.patches import grid_of, patchify, resize_kernel, unpatchify

sides = st.integers(1, 5)


@given(b=st.integers(0, 3), c=st.integers(1, 5), rows=sides, columns=sides, p=sides, q=sides)
def test_there_and_back(b: int, c: int, rows: int, columns: int, p: int, q: int):
    images = torch.randn(b, c, rows * p, columns * q)
    patches = patchify(images, (p, q))
    assert patches.shape == (b, rows * columns, p * q * c)
    if b:
        assert torch.equal(unpatchify(patches, (p, q), (rows, columns)), images)


def test_order_inside_a_patch_is_row_column_channel():
    images = torch.arange(2 * 4 * 6.0).reshape(1, 2, 4, 6)
    patches = patchify(images, (2, 3))
    row, column = 1, 1
    patch = images[0, :, row * 2 : row * 2 + 2, column * 3 : column * 3 + 3]
    assert torch.equal(patches[0, row * 2 + column], patch.permute(1, 2, 0).flatten())


def test_grid():
    assert grid_of((32, 48), (8, 16)) == (4, 3)
    with raises("encoder.img_size"):
        grid_of((60, 64), (16, 16))
    with raises("encoder.img_size"):
        patchify(torch.zeros(1, 3, 8, 8), (16, 16))


@pytest.mark.parametrize("size", [(16, 16), (14, 17), (28, 15)])
def test_a_larger_kernel_embeds_larger_patches_as_before(size: tuple[int, int]):
    kernel, patches = torch.randn(5, 3, 14, 14), torch.randn(2, 3, 14, 14)
    larger = F.interpolate(patches, size, mode="bilinear")
    before = torch.einsum("dcpq,bcpq->bd", kernel, patches)
    after = torch.einsum("dcpq,bcpq->bd", resize_kernel(kernel, size), larger)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
