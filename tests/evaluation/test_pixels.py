"""Mean IoU with intervals over images."""

import numpy as np
import pytest

from mae_kit.data.decode import IGNORED
from mae_kit.evaluation.pixels import PixelCounts, count_pixels, stack


def images(right: float, seed: int, count: int = 30) -> PixelCounts:
    """Masks of three classes, such a fraction of whose pixels are found."""
    draw = np.random.default_rng(seed)
    counts = []
    for _ in range(count):
        truth = draw.integers(0, 3, (8, 9)).astype(np.uint8)
        found = np.where(draw.random((8, 9)) < right, truth, (truth + 1) % 3).astype(np.uint8)
        truth[:2] = IGNORED
        counts.append(count_pixels(found, truth, 4))
    return stack(counts)


def test_the_score_is_of_the_pixels_of_all_images():
    counts = images(0.8, seed=0)
    found = counts.score()
    right, true, predicted = (column.sum(axis=0)[:3] for column in counts)
    assert found.value == pytest.approx(np.mean(right / (true + predicted - right)))
    assert found.low < found.value < found.high and 0.02 < found.high - found.low < 0.1
    record = found.record(list("abcd"))
    assert record["miou"] == found.value and record["of_classes"][3]["iou"] is None
    assert counts.true.sum() == 30 * 6 * 9


def test_a_gain_is_on_the_same_images():
    better, worse = images(0.9, seed=0), images(0.7, seed=1)
    gain = better.gain(worse)
    assert gain.mean == pytest.approx(better.score().value - worse.score().value)
    assert 0 < gain.low < gain.mean < gain.high
    assert tuple(better.gain(better)) == (0, 0, 0)
