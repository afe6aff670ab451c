"""Pairs -> groups, and of each group what stays: one picture, or none where an evaluation set has it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mae_kit.data.index.open import Index
from mae_kit.duplicates.pairs import Pairs


class Groups(NamedTuple):
    """Of n rows: the samples, and behind them those they are held against.

    Attributes:
        group: Number of each row's group; most are alone in theirs.
        stays: Row of the one that stands for the group: the largest picture among the samples, by pixels, then bytes,
            then the earliest; in a group that holds a row of the evaluation set, the first such row.
        own: How many rows are samples.
    """

    group: Int64[np.ndarray, " n"]
    stays: Int64[np.ndarray, " n"]
    own: int

    def dropped(self) -> Int64[np.ndarray, " d"]:
        """Samples that go."""
        return np.flatnonzero(self.stays[: self.own] != np.arange(self.own))

    def in_evaluation(self) -> Bool[np.ndarray, " n"]:
        """Rows whose group holds one of the evaluation set."""
        return self.stays >= self.own

    def conflicting(self, labels: Int64[np.ndarray, " own"]) -> Int64[np.ndarray, " c"]:
        """Numbers of the groups whose samples have different labels; those without label (-1) say nothing."""
        known = np.flatnonzero(labels >= 0)
        least = np.full(self.group.max() + 1, np.iinfo(np.int64).max)
        most = np.full_like(least, -1)
        np.minimum.at(least, self.group[known], labels[known])
        np.maximum.at(most, self.group[known], labels[known])
        return np.flatnonzero(most > least)


def grouped(pairs: Pairs, index: Index, others: int = 0) -> Groups:
    """Join what is paired, also through third ones.

    Args:
        pairs: Over the samples of `index`, and `others` more rows behind them.
        index: The samples.
        others: Rows of an evaluation set.
    """
    own, n = len(index), len(index) + others
    edges = coo_array((np.ones(len(pairs), bool), (pairs.first, pairs.second)), shape=(n, n))
    group = connected_components(edges, directed=False)[1].astype(np.int64)
    pixels, size = np.zeros(n, np.int64), np.zeros(n, np.int64)
    pixels[:own], size[:own] = index.width.astype(np.int64) * index.height, index.size
    rows = np.arange(n)
    order = np.lexsort((rows, -size, -pixels, rows < own, group))  # the evaluation set comes first
    first = np.ones(n, dtype=bool)
    first[1:] = np.diff(group[order]) != 0
    return Groups(group, order[first][group], own)
