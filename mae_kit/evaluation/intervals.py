"""How far a share of right answers may be off: the bootstrap's 95% interval."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

COVERAGE, DRAWS = 0.95, 1000


class Score(NamedTuple):
    """Right answers, 0..1, with an interval.

    Attributes:
        top1: Share of the images whose class is right, the mean over trials.
        low: Lower end of the 95% interval.
        high: Upper end.
    """

    top1: float
    low: float
    high: float


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
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return Score(float(values.mean()), float(low), float(high))


def score_share(share: float, images: int) -> Score:
    """Of one trial of which only the share of right answers is known: which they are, the bootstrap does not ask."""
    return score(np.arange(images)[None] < round(share * images))
