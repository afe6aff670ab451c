"""Groups of duplicates, and the one image of each that is kept: none if the evaluation set has it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mae_kit.data.index.open import Index
from mae_kit.duplicates.pairs import Pairs


class Groups(NamedTuple):
    """Groups of n rows: the samples, and after them the evaluation set.

    Attributes:
        group: Number of each row's group; most groups have one row.
        stays: Row of the group's representative: the largest image among the samples, by pixels, then bytes, then
            position; in a group with a row of the evaluation set, the first such row.
        own: Number of samples.
    """

    group: Int64[np.ndarray, " n"]
    stays: Int64[np.ndarray, " n"]
    own: int

    def dropped(self) -> Int64[np.ndarray, " d"]:
        """Samples that are removed."""
        return np.flatnonzero(self.stays[: self.own] != np.arange(self.own))

    def in_evaluation(self) -> Bool[np.ndarray, " n"]:
        """Rows whose group has a row of the evaluation set."""
        return self.stays >= self.own

    def conflicting(self, labels: Int64[np.ndarray, " own"]) -> Int64[np.ndarray, " c"]:
        """Numbers of the groups whose samples have different labels; missing labels (-1) are ignored."""
        known = np.flatnonzero(labels >= 0)
        least = np.full(self.group.max() + 1, np.iinfo(np.int64).max)
        most = np.full_like(least, -1)
        np.minimum.at(least, self.group[known], labels[known])
        np.maximum.at(most, self.group[known], labels[known])
        return np.flatnonzero(most > least)


def grouped(pairs: Pairs, index: Index, others: int = 0) -> Groups:
    """Join pairs to connected groups.

    Args:
        pairs: Of the samples of `index`, and after them `others` more rows.
        index: The samples.
        others: Number of rows of the evaluation set.
    """
    own, n = len(index), len(index) + others
    edges = coo_array((np.ones(len(pairs), bool), (pairs.first, pairs.second)), shape=(n, n))
    group = connected_components(edges, directed=False)[1].astype(np.int64)
    pixels, size = np.zeros(n, np.int64), np.zeros(n, np.int64)
    pixels[:own], size[:own] = index.width.astype(np.int64) * index.height, index.size
    rows = np.arange(n)
    order = np.lexsort((rows, -size, -pixels, rows < own, group))  # the evaluation set first
    first = np.ones(n, dtype=bool)
    first[1:] = np.diff(group[order]) != 0
    return Groups(group, order[first][group], own)
