"""Palettes: the nearest color, and colors found in pixels."""

import numpy as np
import torch
from support.errors import raises

from mae_kit.encoders.palette import fit_palette, nearest_colors


def test_the_nearest_is_the_nearest():
    generator = torch.Generator().manual_seed(0)
    pixels, palette = torch.randn(2, 50, 3, generator=generator), torch.randn(32, 3, generator=generator)
    found = nearest_colors(pixels, palette)
    assert torch.equal(found, (pixels[:, :, None] - palette).square().sum(dim=3).argmin(dim=2))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest_colors(pixels, palette), found)


def clouds() -> tuple[np.ndarray, np.ndarray]:
    """Pixels around eight colors, which lie far from each other."""
    random = np.random.default_rng(0)
    colors = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
    return colors, (colors[random.integers(8, size=4000)] + random.normal(0, 0.02, (4000, 3))).astype(np.float32)


def test_the_colors_that_are_there_are_found_and_the_same_ones_each_time():
    colors, pixels = clouds()
    found = fit_palette(pixels, 8)
    assert np.abs(found[np.lexsort(found.round().T[::-1])] - colors).max() < 0.01
    assert np.array_equal(found, fit_palette(pixels, 8))


def test_more_colors_than_there_are_is_refused():
    gray = np.repeat(np.linspace(-1, 1, 17, dtype=np.float32), 100)[:, None]
    assert np.unique(fit_palette(gray, 17)).shape == (17,)
    with raises("encoder.colors"):
        fit_palette(gray, 512)
