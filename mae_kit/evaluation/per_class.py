"""How well each class is told: what a mean over images does not show where some classes are rare."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num


class Counts(NamedTuple):
    """Of each class how many images; leading axes are those of several scorings.

    Attributes:
        right: That have it and were said to.
        true: That have it.
        predicted: That were said to have it.
    """

    right: Num[np.ndarray, "*n k"]
    true: Num[np.ndarray, "*n k"]
    predicted: Num[np.ndarray, "*n k"]

    @classmethod
    def of_confusion(cls, confusion: Int[np.ndarray, "k k"]) -> "Counts":
        """A row is a true class, a column a predicted one."""
        return cls(np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0))

    @classmethod
    def of_sets(cls, predicted: Bool[np.ndarray, "m k"], true: Bool[np.ndarray, "m k"]) -> "Counts":
        """Any number of classes an image."""
        return cls((predicted & true).sum(axis=0), true.sum(axis=0), predicted.sum(axis=0))

    def recall(self) -> Float[np.ndarray, "*n k"]:
        return _share(self.right, self.true)

    def precision(self) -> Float[np.ndarray, "*n k"]:
        return _share(self.right, self.predicted)

    def f1(self) -> Float[np.ndarray, "*n k"]:
        """The harmonic mean of precision and recall."""
        return _share(2 * self.right, self.true + self.predicted)


def macro(values: Float[np.ndarray, "*n k"]) -> Float[np.ndarray, "*n"]:
    """The mean over the classes that have a value, each counting alike; 0 where none has."""
    known = ~np.isnan(values)
    return np.asarray(np.where(known, values, 0).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """NaN where there is nothing to have a share of."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
