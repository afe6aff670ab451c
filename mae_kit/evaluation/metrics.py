"""Per-class metrics, over weighted images: what the bootstrap resamples thousands of times in one pass."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num


class Counts(NamedTuple):
    """Of each class how many images, or pixels; leading axes are those of several scorings.

    Attributes:
        right: True positives.
        true: Images of the class.
        predicted: Images predicted to be of the class.
    """

    right: Num[np.ndarray, "*n k"]
    true: Num[np.ndarray, "*n k"]
    predicted: Num[np.ndarray, "*n k"]

    @classmethod
    def of_confusion(cls, confusion: Int[np.ndarray, "k k"]) -> "Counts":
        """A row is a true class, a column a predicted one."""
        return cls(np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0))

    @classmethod
    def of_sets(
        cls,
        predicted: Bool[np.ndarray, "m k"],
        true: Bool[np.ndarray, "m k"],
        weights: Float[np.ndarray, "*n m"] | None = None,
    ) -> "Counts":
        """Any number of classes an image; images are counted so many times, by default once."""
        once = np.ones(len(true), np.float32) if weights is None else weights
        return cls(*(once @ sets.astype(once.dtype) for sets in (predicted & true, true, predicted)))

    def recall(self) -> Float[np.ndarray, "*n k"]:
        return _ratio(self.right, self.true)

    def precision(self) -> Float[np.ndarray, "*n k"]:
        return _ratio(self.right, self.predicted)

    def f1(self) -> Float[np.ndarray, "*n k"]:
        """The harmonic mean of precision and recall."""
        return _ratio(2 * self.right, self.true + self.predicted)

    def iou(self) -> Float[np.ndarray, "*n k"]:
        """Intersection over union."""
        return _ratio(self.right, self.true + self.predicted - self.right)

    def columns(self) -> dict[str, np.ndarray]:
        """Per-class metrics, each [k]."""
        return {
            "images": self.true.astype(int),
            "precision": self.precision(),
            "recall": self.recall(),
            "f1": self.f1(),
        }


def class_rows(columns: dict[str, np.ndarray], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Make a row for each class; None where a metric is undefined.

    Args:
        columns: Values of the classes, NaN where undefined.
        classes: Names.
    """
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    values = ([None if value != value else value for value in row] for row in rows)
    return [{"name": name, **dict(zip(columns, row, strict=True))} for name, row in zip(classes, values, strict=True)]


def average_precision(
    scores: Float[np.ndarray, "m k"], true: Bool[np.ndarray, "m k"], weights: Float[np.ndarray, "*n m"] | None = None
) -> Float[np.ndarray, "*n k"]:
    """Of each class: the mean over the images that have it of the precision down to them; NaN where none has it.

    Images of equal scores are named together (scikit-learn, `average_precision_score`).

    Args:
        scores: Larger where a class is likelier.
        true: Which images have which class.
        weights: How many times each image is counted, by default once.
    """
    once = np.ones(len(true), np.float32) if weights is None else weights
    return np.stack([_precision_down(one, has, once) for one, has in zip(scores.T, true.T, strict=True)], axis=-1)


def _precision_down(
    scores: Float[np.ndarray, " m"], true: Bool[np.ndarray, " m"], weights: Float[np.ndarray, "*n m"]
) -> Float[np.ndarray, "*n"]:
    """Of one class; counted from image that has it to image that has it, since nothing happens in between."""
    order = np.argsort(-scores, kind="stable")
    falling, places = -scores[order], np.flatnonzero(true[order])
    if not len(places):
        return np.full(weights.shape[:-1], np.nan)
    named = np.searchsorted(falling, falling[places], side="right")  # down to the last of that score
    named, firsts = np.unique(named, return_index=True)
    hits = np.add.reduceat(weights[..., order[places]], firsts, axis=-1)
    images = np.add.reduceat(weights[..., order[: named[-1]]], np.append(0, named[:-1]), axis=-1).cumsum(axis=-1)
    precision = hits.cumsum(axis=-1) / np.maximum(images, 1)
    return _ratio(np.asarray((hits * precision).sum(axis=-1)), np.asarray(hits.sum(axis=-1)))


def macro(values: Float[np.ndarray, "*n k"]) -> Float[np.ndarray, "*n"]:
    """Unweighted mean over the classes that have a value; 0 where none has."""
    known = ~np.isnan(values)
    return np.asarray(np.where(known, values, 0).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide; NaN where the denominator is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0, dtype=float)
