"""Sets of classes, one a sample, in two arrays: what a million images show, cheap to save, to fork and to pickle."""

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int32, Int64

UNKNOWN = -1


class ClassSets:
    """The classes of n samples.

    Attributes:
        count: How many classes each sample has, 0 where it shows none of them; -1 where that is not known.
        values: The classes, sample after sample, ascending in each.
    """

    def __init__(self, count: Int32[np.ndarray, " n"], values: Int32[np.ndarray, " total"]):
        self.count, self.values = count, values

    @classmethod
    def pack(cls, sets: Iterable[Sequence[int] | None]) -> "ClassSets":
        """Of ascending numbers; None = not known."""
        known = list(sets)
        count = np.array([UNKNOWN if each is None else len(each) for each in known], np.int32)
        return cls(count, np.array([value for each in known for value in each or ()], np.int32))

    @classmethod
    def unknown(cls, n: int) -> "ClassSets":
        return cls(np.full(n, UNKNOWN, np.int32), np.empty(0, np.int32))

    @classmethod
    def join(cls, parts: Sequence["ClassSets"]) -> "ClassSets":
        return cls(np.concatenate([part.count for part in parts]), np.concatenate([part.values for part in parts]))

    @property
    def known(self) -> Bool[np.ndarray, " n"]:
        return self.count >= 0

    def take(self, rows: Int64[np.ndarray, " m"] | slice) -> "ClassSets":
        """Those of some samples, in the order of `rows`."""
        count = self.count[rows]
        sizes = np.maximum(count, 0).astype(np.int64)
        shift = np.repeat(self._start[rows] - (np.cumsum(sizes) - sizes), sizes)
        return ClassSets(count, self.values[np.arange(len(shift)) + shift])

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The arrays by name, as an index file holds them."""
        return {"class_count": self.count, "class_values": self.values}

    def multi_hot(self, classes: int) -> Bool[np.ndarray, "n k"]:
        """True where a sample has the class; a row of False where nothing is known of it."""
        hot = np.zeros((len(self), classes), bool)
        hot[np.repeat(np.arange(len(self)), np.maximum(self.count, 0)), self.values] = True
        return hot

    def numbers(self) -> Int64[np.ndarray, " n"]:
        """The same number for the same set; -1 where it is not known."""
        seen: dict[tuple[int, ...] | None, int] = {None: UNKNOWN}
        return np.array([seen.setdefault(each, len(seen) - 1) for each in self.tolist()], np.int64)

    def tolist(self) -> list[tuple[int, ...] | None]:
        parts = np.split(self.values, self._start[1:])
        return [tuple(part.tolist()) if known else None for part, known in zip(parts, self.known, strict=True)]

    def __len__(self) -> int:
        return len(self.count)

    @cached_property
    def _start(self) -> Int64[np.ndarray, " n"]:
        """Of each sample the place of its first class among the values."""
        sizes = np.maximum(self.count, 0).astype(np.int64)
        return np.cumsum(sizes) - sizes
