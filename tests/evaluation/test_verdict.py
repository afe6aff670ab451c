import numpy as np
import pytest

from mae_kit.evaluation.bootstrap import paired_gain
from mae_kit.evaluation.verdict import MORE, knn_verdict, verdict


@pytest.mark.parametrize(("low", "high", "gained"), [(0.01, 0.05, True), (-0.01, 0.05, False), (-0.05, -0.01, False)])
def test_it_says_what_to_do_unless_something_is_gained(low: float, high: float, gained: bool):
    sentence = verdict({"mean": (low + high) / 2, "low": low, "high": high}, "10 labels per class", "3 fine-tunings")
    assert (MORE in sentence) is not gained and f"{100 * (low + high) / 2:+.1f} [" in sentence


@pytest.mark.parametrize(
    ("after", "images", "gained"), [(0.6, 47, True), (0.35, 47, False), (0.35, 2000, True), (0.3, 0, False)]
)
def test_a_knn_score_of_few_images_may_be_chance(after: float, images: int, gained: bool):
    told = knn_verdict(0.3, after, images)
    assert (
        (MORE in told) is not gained and f"frozen kNN {after:.1%}" in told and ("47 images" in told) is (images == 47)
    )


def test_a_gain_is_taken_image_by_image():
    truth = np.arange(200) % 2
    theirs = np.where(np.arange(200) < 100, truth, 1 - truth)
    ours = np.where(np.arange(200) < 140, truth, 1 - truth)
    gain = paired_gain(ours, theirs, truth)
    assert gain.mean == pytest.approx(0.2) and 0.14 < gain.low < 0.2 < gain.high < 0.26
    assert paired_gain(ours, ours, truth) == (0, 0, 0)


def test_scores_of_all_classes_are_compared_by_their_precision():
    random = np.random.default_rng(0)
    truth = random.random((100, 3)) < 0.3
    ours, theirs = truth + random.normal(0, 0.1, (100, 3)), random.normal(0, 1, (100, 3))
    assert paired_gain(ours, theirs, truth).low > 0.3
