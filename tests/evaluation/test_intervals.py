"""Intervals against SciPy's bootstrap, and how often they hold the truth."""

import numpy as np
import pytest

from mae_kit.evaluation.intervals import score, score_classes, score_share


@pytest.mark.parametrize(("images", "share"), [(100, 0.3), (2000, 0.9)])
def test_equal_to_scipy(images: int, share: float):
    stats = pytest.importorskip("scipy.stats")
    right = np.random.default_rng(0).random(images) < share
    theirs = stats.bootstrap((right,), np.mean, method="percentile", n_resamples=2000, rng=1).confidence_interval
    found = score(right[None])
    assert found.top1 == pytest.approx(right.mean())
    error = 0.25 * (theirs.high - theirs.low)  # of two draws of a quantile
    assert score_share(float(right.mean()), images) == pytest.approx(found, abs=error)
    assert found.low == pytest.approx(theirs.low, abs=error) and found.high == pytest.approx(theirs.high, abs=error)


def test_they_hold_the_truth_about_as_often_as_they_say():
    random = np.random.default_rng(0)
    found = [score(random.random((1, 200)) < 0.7, seed) for seed in range(40)]
    assert 34 <= sum(one.low <= 0.7 <= one.high for one in found) <= 40


def test_trials_that_disagree_widen_them():
    alike = np.tile(np.arange(200) % 2 == 0, (5, 1))
    apart = np.repeat(np.array([1, 1, 0, 0, 1], bool)[:, None], 200, axis=1)
    assert score(alike).high - score(alike).low < 0.2 < score(apart).high - score(apart).low
    assert score(apart).top1 == pytest.approx(0.6)


def test_always_right_is_certain_and_the_seed_decides():
    assert score(np.ones((2, 9), bool))[:3] == (1, 1, 1)
    right = np.random.default_rng(0).random((3, 50)) < 0.5
    assert score(right, 1) == score(right, 1) != score(right, 2)


def test_a_rare_class_shows_in_macro_f1_and_in_how_sure_it_is():
    truth = np.array([0] * 180 + [1] * 20)
    predicted = np.where(np.arange(200) < 190, 0, 1)  # half of the rare ones are found
    found = score_classes(predicted[None], truth)
    assert found[:3] == score((predicted == truth)[None])[:3]
    expected = (2 * 180 / 370 + 2 * 10 / 30) / 2
    macro, low, high = (float(value or 0) for value in found[3:])
    assert macro == pytest.approx(expected) and low < expected < high
    assert high - low > 2 * (found.high - found.low)


def test_macro_f1_is_the_mean_over_trials():
    truth = np.array([0, 0, 1, 1])
    found = score_classes(np.array([[0, 0, 1, 1], [1, 1, 0, 0]]), truth)
    assert found.macro_f1 == 0.5 and (found.macro_low, found.macro_high) == (0, 1)
