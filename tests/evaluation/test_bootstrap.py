"""Intervals against SciPy's bootstrap, and how often they hold the truth."""

import numpy as np
import pytest

from mae_kit.evaluation import bootstrap as intervals
from mae_kit.evaluation.bootstrap import Score, headline, score, score_classes, score_fraction, score_sets, wilson
from mae_kit.evaluation.metrics import average_precision, macro


@pytest.mark.parametrize(("images", "share"), [(100, 0.3), (2000, 0.9)])
def test_equal_to_scipy(images: int, share: float):
    stats = pytest.importorskip("scipy.stats")
    right = np.random.default_rng(0).random(images) < share
    theirs = stats.bootstrap((right,), np.mean, method="percentile", n_resamples=2000, rng=1).confidence_interval
    found = score(right[None])
    assert found.value == pytest.approx(right.mean())
    error = 0.25 * (theirs.high - theirs.low)  # of two draws of a quantile
    assert score_fraction(float(right.mean()), images)[1:4] == pytest.approx(found[1:4], abs=error)
    assert found.low == pytest.approx(theirs.low, abs=error) and found.high == pytest.approx(theirs.high, abs=error)


def test_they_hold_the_truth_about_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(intervals, "DRAWS", 200)
    random = np.random.default_rng(0)
    found = [score(random.random((1, 200)) < 0.7, seed) for seed in range(40)]
    assert 34 <= sum(one.low <= 0.7 <= one.high for one in found) <= 40


def test_trials_that_disagree_widen_them():
    alike = np.tile(np.arange(200) % 2 == 0, (5, 1))
    apart = np.repeat(np.array([1, 1, 0, 0, 1], bool)[:, None], 200, axis=1)
    assert score(alike).high - score(alike).low < 0.2 < score(apart).high - score(apart).low
    assert score(apart).value == pytest.approx(0.6)


def test_all_right_or_none_is_wilsons_since_few_images_prove_little():
    stats = pytest.importorskip("scipy.stats")
    for share, images in ((1, 15), (0, 15), (0.7, 40)):
        theirs = stats.binomtest(round(share * images), images).proportion_ci(method="wilson")
        assert wilson(share, images) == pytest.approx((theirs.low, theirs.high), abs=1e-5)
    low, high = wilson(1, 15)
    assert score(np.ones((2, 15), bool))[:4] == score_fraction(1, 15)[:4] == ("top1", 1, low, 1)
    assert 0.79 < low < 0.8 and high == 1
    assert score(np.zeros((1, 15), bool))[:4] == ("top1", 0, 0, pytest.approx(1 - low))
    assert score_classes(np.zeros((1, 15), int), np.zeros(15, int), 2).low == low


def test_the_seed_decides():
    right = np.random.default_rng(0).random((3, 50)) < 0.5
    assert score(right, 1) == score(right, 1) != score(right, 2)


def test_a_rare_class_shows_in_macro_f1_and_in_how_sure_it_is():
    truth = np.array([0] * 180 + [1] * 20)
    predicted = np.where(np.arange(200) < 190, 0, 1)  # half of the rare ones are found
    found = score_classes(predicted[None], truth, 2)
    assert found[:4] == score((predicted == truth)[None])[:4]
    expected = (2 * 180 / 370 + 2 * 10 / 30) / 2
    assert found.macro_f1 == pytest.approx(expected) and found.macro_low < expected < found.macro_high
    assert found.macro_high - found.macro_low > 2 * (found.high - found.low)


def test_macro_f1_is_the_mean_over_trials():
    truth = np.array([0, 0, 1, 1])
    found = score_classes(np.array([[0, 0, 1, 1], [1, 1, 0, 0]]), truth, 2)
    assert found.macro_f1 == 0.5 and (found.macro_low, found.macro_high) == (0, 1)


def some_sets(images: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores that tell a little, and the sets; nobody has the last class."""
    random = np.random.default_rng(0)
    truth = random.random((images, 4)) < [0.5, 0.3, 0.1, 0]
    return random.normal(size=(images, 4)) + truth, truth


def test_sets_equal_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    scores, truth = some_sets(120)
    found = score_sets(scores[None], truth, 1.5)
    each = metrics.average_precision_score(truth[:, :3], scores[:, :3], average=None)
    said = scores >= 1.5
    f1 = metrics.f1_score(truth, said, average=None, zero_division=0)
    assert found.metric == "map" and found.value == pytest.approx(each.mean())
    assert said[:, 3].any() and found.macro_f1 == pytest.approx(f1.mean()), "what is named and never there counts"
    assert found.low < found.value < found.high and found.macro_low < found.macro_f1 < found.macro_high
    rows = found.record("abcd")["of_classes"]
    assert [row["f1"] for row in rows] == pytest.approx(f1) and rows[3]["average_precision"] is None
    assert [row["images"] for row in rows] == truth.sum(axis=0).tolist()


def test_the_interval_of_sets_is_that_of_images_drawn_anew():
    scores, truth = some_sets(80)
    random, drawn = np.random.default_rng(1), []
    for _ in range(1000):
        rows = random.integers(80, size=80)
        drawn.append(macro(average_precision(scores[rows], truth[rows])))
    low, high = np.quantile(drawn, (0.025, 0.975))
    found = score_sets(scores[None], truth, 0.5)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.2 * (high - low))


def test_trials_of_sets_are_averaged_and_widen():
    scores, truth = some_sets(80)
    alone, both = score_sets(scores[None], truth, 0.5), score_sets(np.stack([scores, -scores]), truth, 0.5)
    blind = score_sets(-scores[None], truth, 0.5)
    assert both.value == pytest.approx((alone.value + blind.value) / 2)
    assert both.high - both.low > alone.high - alone.low
    assert both.record("abcd")["of_classes"][0]["images"] == truth[:, 0].sum()


def test_classes_of_single_labels_have_their_rows():
    found = score_classes(np.array([[0, 0, 1, 1], [0, 0, 0, 1]]), np.array([0, 0, 0, 1]), 3).record("abc")
    first, _, nobody = found["of_classes"]
    assert first == {"name": "a", "images": 3, "precision": 1, "recall": 5 / 6, "f1": 10 / 11}
    assert nobody == {"name": "c", "images": 0, "precision": None, "recall": None, "f1": None}


def test_what_is_not_known_is_null():
    assert Score("map").record() == {"map": None, "low": None, "high": None} | dict.fromkeys(
        ("macro_f1", "macro_low", "macro_high")
    )
    assert headline({"map": 0.5}) == ("map", 0.5) and headline({"top1": 0.5}) == ("top1", 0.5)
