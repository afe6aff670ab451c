"""Class by class, against scikit-learn."""

import numpy as np
import pytest

from mae_kit.evaluation.metrics import Counts, average_precision, macro

metrics = pytest.importorskip("sklearn.metrics")
RANDOM = np.random.default_rng(0)


def test_a_rare_class_that_is_never_found_halves_macro_f1_and_hardly_moves_top1():
    true = np.array([0] * 95 + [1] * 5)
    predicted = np.zeros(100, int)
    counts = Counts.of_confusion(metrics.confusion_matrix(true, predicted))
    assert counts.recall().tolist() == [1, 0] and np.isnan(counts.precision()[1])
    assert macro(counts.f1()) == pytest.approx(0.95 / 1.95) and macro(counts.recall()) == 0.5


def test_one_label_each_equals_sklearn():
    true = RANDOM.choice(5, 300, p=[0.6, 0.25, 0.1, 0.04, 0.01])
    predicted = np.where(RANDOM.random(300) < 0.6, true, RANDOM.integers(0, 4, 300))
    counts = Counts.of_confusion(metrics.confusion_matrix(true, predicted))
    assert macro(counts.f1()) == pytest.approx(metrics.f1_score(true, predicted, average="macro"))
    assert macro(counts.recall()) == pytest.approx(metrics.balanced_accuracy_score(true, predicted))


def test_any_number_of_classes_equals_sklearn():
    true, predicted = RANDOM.random((80, 6)) < 0.3, RANDOM.random((80, 6)) < 0.4
    counts = Counts.of_sets(predicted, true)
    ours = (counts.precision(), counts.recall(), counts.f1())
    for one, other in zip(ours, metrics.precision_recall_fscore_support(true, predicted), strict=False):
        np.testing.assert_allclose(one, other)


def test_a_class_that_nobody_has_or_names_does_not_count():
    counts = Counts.of_sets(np.array([[True, False]]), np.array([[True, False]]))
    assert macro(counts.f1()) == 1 and np.isnan(counts.f1()[1]) and macro(np.full(3, np.nan)) == 0


@pytest.mark.parametrize("kinds", [3, 1000])
def test_average_precision_equals_sklearn_with_ties_and_repeated_images(kinds: int):
    scores, true = RANDOM.integers(0, kinds, (60, 4)) / kinds, RANDOM.random((60, 4)) < [0.5, 0.2, 0.1, 0]
    weights = np.stack([np.ones(60), RANDOM.integers(1, 4, 60)])
    found = average_precision(scores, true, weights)
    for row, weight in zip(found, weights, strict=True):
        theirs = [metrics.average_precision_score(true[:, k], scores[:, k], sample_weight=weight) for k in range(3)]
        np.testing.assert_allclose(row[:3], theirs)
    np.testing.assert_allclose(average_precision(scores, true), found[0], rtol=1e-5)
    assert np.isnan(found[:, 3]).all() and macro(found)[0] == pytest.approx(found[0, :3].mean())


def test_images_counted_twice_are_two_images():
    true, predicted = RANDOM.random((30, 3)) < 0.4, RANDOM.random((30, 3)) < 0.4
    once = Counts.of_sets(np.tile(predicted, (2, 1)), np.tile(true, (2, 1)))
    for one, other in zip(once, Counts.of_sets(predicted, true, np.full((1, 30), 2.0)), strict=True):
        assert (one == other[0]).all()
