"""Confidence intervals (95%) of scores: the percentile bootstrap's, or Wilson's."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from mae_kit.evaluation.metrics import Counts, average_precision, class_rows, macro

TOP1, MAP, MAP50, MIOU, R2 = "top1", "map", "map50", "miou", "r2"
METRICS = {TOP1: "Top-1", MAP: "Mean average precision", MAP50: "mAP50", MIOU: "Mean IoU", R2: "R2"}
COVERAGE, DRAWS = 0.95, 1000
NORMAL = 1.96  # deviations on either side that hold so much of a normal distribution
_TOGETHER, _WEIGHTS = 100, 4_000_000  # draws counted at once, and fewer where these take so many numbers

Measure = Callable[[Float[np.ndarray, "n q"]], Float[np.ndarray, "n s"]]
"""Of each trial, with the images counted so many times."""


class Score(NamedTuple):
    """Headline metric in [0, 1] with a 95% confidence interval, and macro-F1; NaN where unknown.

    Attributes:
        metric: `top1`; `map`, mean average precision, of multi-label data; `map50` of boxes; `miou` of masks; `r2` of
            numbers.
        value: Mean over trials.
        low: Lower end of the 95% interval.
        high: Upper end.
        macro_f1: The mean of the classes' F1, the mean over trials.
        macro_low: Lower end of its interval.
        macro_high: Upper end.
        of_classes: Per-class metrics, each [k], over all trials.
    """

    metric: str
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    macro_f1: float = math.nan
    macro_low: float = math.nan
    macro_high: float = math.nan
    of_classes: dict[str, np.ndarray] | None = None

    def record(self, classes: Sequence[str] = ()) -> dict[str, Any]:
        """Convert for a JSON file: the value under its metric's name, a row for each class, null where unknown.

        Args:
            classes: Their names.
        """
        metric, value, *others, columns = self
        numbers = {metric: value, **dict(zip(self._fields[2:-1], others, strict=True))}
        known = {name: None if math.isnan(number) else number for name, number in numbers.items()}
        return known | ({"of_classes": class_rows(columns, classes)} if columns else {})


def headline(record: dict[str, Any]) -> tuple[str, Any]:
    """The headline metric of a score's record or a classifier's result, and its value or None."""
    metric = next((name for name in (R2, MIOU, MAP50, MAP) if name in record), TOP1)
    return metric, record.get(metric)


def score(right: Bool[np.ndarray, "s q"], seed: int = 0) -> Score:
    """The percentile bootstrap (Efron, 1979) over images, and over trials where there are several.

    Where all images are right, or all wrong, the bootstrap's interval has no width: top-1 then has Wilson's, while
    macro-F1 and mean average precision keep the bootstrap's.

    Args:
        right: Whether each image was classified correctly, a row for each trial.
        seed: Of the resampling.
    """
    random = np.random.default_rng(seed)
    trials, images = right.shape
    values = right.astype(np.float32)
    value = float(values.mean())
    if value in (0, 1):
        return Score(TOP1, value, *wilson(value, images))
    means = np.empty(DRAWS)
    for draw in range(DRAWS):
        weights = np.bincount(random.integers(trials, size=trials), minlength=trials).astype(np.float32)
        means[draw] = (weights @ values)[random.integers(images, size=images)].mean() / trials
    return Score(TOP1, value, *_ends(means))


def wilson(fraction: float, images: int) -> tuple[float, float]:
    """Wilson's 95% interval (1927) of a fraction of some images, in [0, 1]; not degenerate at 0 and 1.

    The four lines of `scipy.stats.binomtest(...).proportion_ci(method="wilson")`, which would bring scipy to every
    installation.
    """
    z2 = NORMAL**2
    half = math.sqrt(fraction * (1 - fraction) * z2 * images + z2 * z2 / 4)
    low, high = ((fraction * images + (z2 / 2 + side)) / (images + z2) for side in (-half, half))
    return low, high


def score_classes(predicted: Int64[np.ndarray, "s q"], truth: Int64[np.ndarray, " q"], classes: int) -> Score:
    """Compute `score` and macro-F1 over the classes that occur, with an interval from the same bootstrap.

    Args:
        predicted: Class of each image, a row a trial.
        truth: Class of each image.
        classes: Number of classes.
    """

    def counts(weights: Float[np.ndarray, "n q"]) -> Counts:
        return _counts(predicted, truth, weights, classes)

    trials, images = predicted.shape
    macro_f1, low, high = resampled(lambda weights: macro(counts(weights).f1()), trials, images)
    right, true, named = (part.sum(axis=(0, 1)) for part in counts(np.ones((1, images), np.float32)))
    return score(predicted == truth)._replace(
        macro_f1=macro_f1, macro_low=low, macro_high=high, of_classes=_columns(Counts(right, true, named), trials)
    )


def score_sets(scores: Float[np.ndarray, "s q k"], truth: Bool[np.ndarray, "q k"], yes: float) -> Score:
    """Compute mean average precision and macro-F1 of multi-label predictions over the classes that occur.

    Args:
        scores: Of each class, larger where it is likelier, for all images of each trial.
        truth: The classes of each image.
        yes: Score from which a class counts as predicted.
    """
    predicted = scores >= yes

    def precision(weights: Float[np.ndarray, "n q"]) -> Float[np.ndarray, "n s"]:
        return np.stack([macro(average_precision(trial, truth, weights)) for trial in scores], axis=-1)

    def f1(weights: Float[np.ndarray, "n q"]) -> Float[np.ndarray, "n s"]:
        return np.stack([macro(Counts.of_sets(trial, truth, weights).f1()) for trial in predicted], axis=-1)

    trials, images, _ = scores.shape
    found = (*resampled(precision, trials, images), *resampled(f1, trials, images))
    together = Counts.of_sets(np.concatenate(predicted), np.tile(truth, (trials, 1)))
    each = np.mean([average_precision(trial, truth) for trial in scores], axis=0)
    return Score(MAP, *found, _columns(together, trials) | {"average_precision": each})


def _columns(counts: Counts, trials: int) -> dict[str, np.ndarray]:
    """Of all trials together; the images are the same in each."""
    columns = counts.columns()
    return columns | {"images": columns["images"] // trials}


def _counts(
    predicted: Int64[np.ndarray, "s q"], truth: Int64[np.ndarray, " q"], weights: Float[np.ndarray, "n q"], classes: int
) -> Counts:
    """[n s k]: of each trial, with the images counted so many times."""
    hits = predicted == truth
    right = np.array([[np.bincount(truth, weight * hit, classes) for hit in hits] for weight in weights])
    named = np.array([[np.bincount(trial, weight, classes) for trial in predicted] for weight in weights])
    true = np.array([np.bincount(truth, weight, classes) for weight in weights])[:, None]
    return Counts(right, np.broadcast_to(true, right.shape), named)


def resampled(measure: Measure, trials: int, images: int) -> tuple[float, float, float]:
    """The mean over trials, and the ends of its interval over images and trials."""
    random = np.random.default_rng(0)
    means = []
    together = max(1, min(_TOGETHER, _WEIGHTS // images))
    for first in range(0, DRAWS, together):
        draws = min(together, DRAWS - first)
        chosen = random.integers(trials, size=(draws, trials))
        rows = random.integers(images, size=(draws, images))
        weights = np.stack([np.bincount(drawn, minlength=images) for drawn in rows]).astype(np.float32)
        means.append(np.take_along_axis(measure(weights), chosen, axis=1).mean(axis=1))
    once = np.ones((1, images), np.float32)
    return float(measure(once).mean()), *_ends(np.concatenate(means))


def _ends(means: np.ndarray) -> tuple[float, float]:
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


class Gain(NamedTuple):
    """A difference of two scores, in fractions of 1.

    Attributes:
        mean: The difference.
        low: Lower end of its 95% interval.
        high: Upper end.
    """

    mean: float
    low: float
    high: float


def paired_gain(
    ours: Int64[np.ndarray, " q"] | Float[np.ndarray, "q k"],
    theirs: Int64[np.ndarray, " q"] | Float[np.ndarray, "q k"],
    truth: Int64[np.ndarray, " q"] | Bool[np.ndarray, "q k"],
) -> Gain:
    """How much better ours are than theirs, by top-1 or mean average precision; bootstrap over the same images.

    Args:
        ours: Predicted classes, or scores of all classes of multi-label data.
        theirs: Of the other model.
        truth: Labels.
    """

    def measure(weights: Float[np.ndarray, "n q"]) -> Float[np.ndarray, "n s"]:
        if truth.ndim == 2:
            each = [macro(average_precision(scores, truth, weights)) for scores in (ours, theirs)]
            return (each[0] - each[1])[:, None]
        better = (ours == truth).astype(np.float32) - (theirs == truth)
        return (weights @ better / weights.sum(axis=1))[:, None]

    return Gain(*resampled(measure, 1, len(truth)))


def score_fraction(fraction: float, images: int) -> Score:
    """Score one trial of which only the accuracy is known: the bootstrap does not ask which images are correct."""
    return score(np.arange(images)[None] < round(fraction * images))
