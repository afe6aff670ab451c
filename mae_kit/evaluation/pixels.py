"""Scores of predicted masks: mean intersection over union, with an interval over the images."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from mae_kit.data.decode import IGNORED
from mae_kit.evaluation.bootstrap import MIOU, Gain, Score, resampled
from mae_kit.evaluation.metrics import Counts, macro


class PixelCounts(Counts):
    """Of each held-out image the pixels of each class, [n k]."""

    @property
    def samples(self) -> int:
        return len(self.true)

    def score(self) -> Score:
        """Mean IoU over the classes that occur, and the mean of their F1 (Dice), of the pixels of all images."""
        whole = self.weighted(np.ones((1, self.samples)))
        columns = {"pixels": whole.true[0] / whole.true.sum(), "iou": whole.iou()[0], "recall": whole.recall()[0]}
        iou = resampled(lambda weights: macro(self.weighted(weights).iou())[:, None], 1, self.samples)
        dice = resampled(lambda weights: macro(self.weighted(weights).f1())[:, None], 1, self.samples)
        return Score(MIOU, *iou, *dice, columns)

    def gain(self, theirs: "PixelCounts") -> Gain:
        """How much larger the mean IoU is than theirs; bootstrap over the same images."""

        def measure(weights: Float[np.ndarray, "n q"]) -> Float[np.ndarray, "n s"]:
            ours, other = (macro(one.weighted(weights).iou()) for one in (self, theirs))
            return (ours - other)[:, None]

        return Gain(*resampled(measure, 1, self.samples))

    def weighted(self, weights: Float[np.ndarray, "m n"]) -> Counts:
        """The pixels of all images, each image counted so many times: [m k]."""
        return Counts(*(weights.astype(np.float64) @ column for column in self))


def count_pixels(found: UInt8[np.ndarray, "h w"], truth: UInt8[np.ndarray, "h w"], classes: int) -> Counts:
    """Count the pixels of each class, [k], where the mask does not ignore them."""
    known = truth != IGNORED
    found, truth = found[known], truth[known]
    return Counts(*(np.bincount(one, minlength=classes) for one in (truth[found == truth], truth, found)))


def stack(images: Sequence[Counts]) -> PixelCounts:
    """The counts of several images, at least one."""
    return PixelCounts(*(np.stack(column) for column in zip(*images, strict=True)))
