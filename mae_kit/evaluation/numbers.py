"""Scores of predicted numbers: R2 and mean absolute error, with an interval over the images."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from mae_kit.evaluation.bootstrap import R2, Gain, Score, resampled


class Numbers(NamedTuple):
    """Predicted numbers of held-out images, next to the true ones.

    Attributes:
        found: [q t].
        truth: [q t].
    """

    found: Float64[np.ndarray, "q t"]
    truth: Float64[np.ndarray, "q t"]

    @property
    def samples(self) -> int:
        return len(self.truth)

    def score(self) -> Score:
        """The mean R2 of the numbers; of each its R2 and mean absolute error."""
        once = np.ones((1, self.samples))
        columns = {"r2": self.r2(once)[0], "mae": np.abs(self.found - self.truth).mean(axis=0)}
        mean = resampled(lambda weights: self.r2(weights).mean(axis=1, keepdims=True), 1, self.samples)
        return Score(R2, *mean, of_classes=columns)

    def gain(self, theirs: "Numbers") -> Gain:
        """How much larger the mean R2 is than theirs; bootstrap over the same images."""

        def measure(weights: Float[np.ndarray, "n q"]) -> Float[np.ndarray, "n s"]:
            return (self.r2(weights) - theirs.r2(weights)).mean(axis=1, keepdims=True)

        return Gain(*resampled(measure, 1, self.samples))

    def r2(self, weights: Float[np.ndarray, "n q"]) -> Float64[np.ndarray, "n t"]:
        """1 - the squared error divided by that of the mean, the images counted so many times.

        0 where all true numbers are equal.
        """
        w = weights.astype(np.float64)
        total = w.sum(axis=1, keepdims=True)
        mean = w @ self.truth / total
        spread = w @ self.truth**2 - total * mean**2
        error = w @ (self.found - self.truth) ** 2
        varies = spread > 1e-9 * (w @ self.truth**2)
        return np.where(varies, 1 - error / np.where(varies, spread, 1), 0.0)
