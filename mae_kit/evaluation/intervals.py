"""How far a share of right answers, or a mean of classes, may be off: the bootstrap's 95% interval."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from mae_kit.evaluation.per_class import Counts, macro

COVERAGE, DRAWS = 0.95, 1000
_TOGETHER = 100  # draws counted at once


class Score(NamedTuple):
    """Right answers, 0..1, with an interval; and what does not hide rare classes.

    Attributes:
        top1: Share of the images whose class is right, the mean over trials.
        low: Lower end of the 95% interval.
        high: Upper end.
        macro_f1: The mean of the classes' F1, the mean over trials; None where only the share is known.
        macro_low: Lower end of its interval.
        macro_high: Upper end.
    """

    top1: float
    low: float
    high: float
    macro_f1: float | None = None
    macro_low: float | None = None
    macro_high: float | None = None


def score(right: Bool[np.ndarray, "s q"], seed: int = 0) -> Score:
    """The percentile bootstrap (Efron, 1979) over images, and over trials where there are several.

    Args:
        right: Whether each image was classified rightly, a row a trial.
        seed: Of the resampling.
    """
    random = np.random.default_rng(seed)
    trials, images = right.shape
    values = right.astype(np.float32)
    means = np.empty(DRAWS)
    for draw in range(DRAWS):
        weights = np.bincount(random.integers(trials, size=trials), minlength=trials).astype(np.float32)
        means[draw] = (weights @ values)[random.integers(images, size=images)].mean() / trials
    return Score(float(values.mean()), *_ends(means))


def score_classes(predicted: Int64[np.ndarray, "s q"], truth: Int64[np.ndarray, " q"], seed: int = 0) -> Score:
    """As `score`, and the classes' mean F1 with an interval made alike, each class that is there counting the same.

    Args:
        predicted: Class of each image, a row a trial.
        truth: Class of each image.
        seed: Of the resampling.
    """
    random = np.random.default_rng(seed)
    trials, images = predicted.shape
    means = []
    for _ in range(DRAWS // _TOGETHER):
        chosen = random.integers(trials, size=(_TOGETHER, trials))
        rows = random.integers(images, size=(_TOGETHER, images))
        weights = np.stack([np.bincount(drawn, minlength=images) for drawn in rows])
        means.append(np.take_along_axis(_macro_f1(predicted, truth, weights), chosen, axis=1).mean(axis=1))
    mean = _macro_f1(predicted, truth, np.ones((1, images), np.int64)).mean()
    return Score(*score(predicted == truth, seed)[:3], float(mean), *_ends(np.concatenate(means)))


def _macro_f1(
    predicted: Int64[np.ndarray, "s q"], truth: Int64[np.ndarray, " q"], weights: Int64[np.ndarray, "n q"]
) -> Float[np.ndarray, "n s"]:
    """Of each trial, with the images counted so many times."""
    classes, hits = 1 + max(int(predicted.max()), int(truth.max())), predicted == truth
    right = np.array([[np.bincount(truth, weight * hit, classes) for hit in hits] for weight in weights])
    named = np.array([[np.bincount(trial, weight, classes) for trial in predicted] for weight in weights])
    true = np.array([np.bincount(truth, weight, classes) for weight in weights])[:, None]
    return macro(Counts(right, np.broadcast_to(true, right.shape), named).f1())


def _ends(means: np.ndarray) -> tuple[float, float]:
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def score_share(share: float, images: int) -> Score:
    """Of one trial of which only the share of right answers is known: which they are, the bootstrap does not ask."""
    return score(np.arange(images)[None] < round(share * images))
