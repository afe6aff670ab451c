"""Images in the plane: neighbors stay neighbors, and each is drawn at its place."""

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from support.errors import raises

from mae_kit.plots.figures import DPI
from mae_kit.plots.map import map_figure, plane


def groups(count: int = 10) -> torch.Tensor:
    """Three groups of features about three directions."""
    generator = torch.Generator().manual_seed(0)
    return torch.eye(3, 16).repeat_interleave(count, 0) * 5 + torch.randn(3 * count, 16, generator=generator)


def test_groups_stay_together():
    places = plane(groups())
    middles = places.reshape(3, 10, 2).mean(axis=1)
    distances = np.linalg.norm(places[:, None] - middles[None], axis=2)
    assert (distances.argmin(axis=1) == np.repeat([0, 1, 2], 10)).mean() > 0.9
    np.testing.assert_array_equal(plane(groups()), places)


def test_images_are_drawn_at_their_places():
    colors = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)
    images = colors[:, :, None, None].expand(3, 3, 8, 16)
    stream = io.BytesIO()
    map_figure(images, np.array([[-5, -3], [5, -3], [-5, 3]], np.float32)).savefig(stream, dpi=DPI)
    pixels = np.asarray(Image.open(stream).convert("RGB")).astype(int)
    found = [np.argwhere((pixels == color.tolist()).all(axis=2)) for color in colors]
    (left, right, above) = (each.mean(axis=0) for each in found)
    assert left[1] < right[1] - 500 and abs(left[0] - right[0]) < 2 and above[0] < left[0] - 500
    height, width = np.ptp(found[0], axis=0) + 1
    assert width / height == pytest.approx(2, rel=0.1)


def test_what_a_map_needs(monkeypatch: pytest.MonkeyPatch):
    with raises("show.map.few"):
        plane(torch.randn(7, 4))
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with raises("show.map.sklearn"):
        plane(torch.randn(9, 4))
