"""What was found, told sample by sample: the lines of the list of what goes."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int64

from mae_kit.data.index.labels import label_names, label_numbers
from mae_kit.data.index.open import Index
from mae_kit.duplicates.groups import Groups
from mae_kit.duplicates.orientations import ORIENTATIONS
from mae_kit.duplicates.pairs import FEATURES, LOOKS, Pairs

EVIDENCE = ("same bytes", "looks alike", "features alike")


@dataclass(frozen=True, eq=False)
class Findings:
    """Of n samples, and behind them m of an evaluation set.

    Attributes:
        index: The samples.
        evaluation: The evaluation set; None without one.
        pairs: What is alike.
        groups: What hangs together.
    """

    index: Index
    evaluation: Index | None
    pairs: Pairs
    groups: Groups

    @cached_property
    def conflicts(self) -> Int64[np.ndarray, " c"]:
        """Groups whose samples have different labels."""
        return self.groups.conflicting(label_numbers(self.index))

    def counts(self) -> dict[str, int]:
        """Samples, and what becomes of them."""
        dropped = self.groups.dropped()
        known = int(self.groups.in_evaluation()[dropped].sum())
        sizes = np.bincount(self.groups.group)
        return {
            "samples": len(self.index),
            "kept": len(self.index) - len(dropped),
            "duplicates": len(dropped) - known,
            "in_evaluation": known,
            "groups": int((sizes > 1).sum()),
            "label_conflicts": len(self.conflicts),
        }

    def lines(self) -> Iterator[dict[str, Any]]:
        """Of each sample that goes: where it is, what stays for it, and by what evidence."""
        conflicts = self._labels_of_conflicts()
        for row, pair in zip(*self._closest(), strict=True):
            stays, group = int(self.groups.stays[row]), int(self.groups.group[row])
            other = int(self.pairs.second[pair] if self.pairs.first[pair] == row else self.pairs.first[pair])
            line = self.place(row) | {"reason": "evaluation" if stays >= len(self.index) else "duplicate"}
            line |= {"of": self.place(stays)} | ({"through": self.place(other)} if other != stays else {})
            yield line | self.evidence(pair) | ({"labels": conflicts[group]} if group in conflicts else {})

    def place(self, row: int) -> dict[str, str]:
        """Shard and key; of the evaluation set behind the samples."""
        index, row = self.source(row)
        return {"shard": index.shards[int(index.shard[row])], "key": index.keys[row]}

    def source(self, row: int) -> tuple[Index, int]:
        """The index that holds a row, and its row there."""
        if row < len(self.index) or self.evaluation is None:
            return self.index, row
        return self.evaluation, row - len(self.index)

    def evidence(self, pair: int) -> dict[str, Any]:
        """Why two samples are taken for one."""
        kind, likeness = int(self.pairs.evidence[pair]), round(float(self.pairs.likeness[pair]), 4)
        said: dict[str, Any] = {"evidence": EVIDENCE[kind]}
        if kind == LOOKS:
            said |= {"orientation": ORIENTATIONS[int(self.pairs.orientation[pair])]}
            said |= {"distance": int(self.pairs.distance[pair]), "outlines": likeness}
        return said | ({"similarity": likeness} if kind == FEATURES else {})

    def _closest(self) -> tuple[list[int], list[int]]:
        """Samples that go, and for each the pair that tells most."""
        pairs, dropped = self.pairs, self.groups.dropped()
        order = np.lexsort((-pairs.likeness, pairs.distance, pairs.evidence))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        best = np.full(len(self.groups.group), len(order))
        for rows in (pairs.first, pairs.second):
            np.minimum.at(best, rows, rank)
        return dropped.tolist(), order[best[dropped]].tolist()

    def _labels_of_conflicts(self) -> dict[int, list[Any]]:
        """The labels of each such group; of a multi-label set a list for each set of classes."""
        members = np.flatnonzero(np.isin(self.groups.group[: len(self.index)], self.conflicts))
        numbers = label_numbers(self.index)
        labels: dict[int, dict[int, Any]] = {}
        for row in members[numbers[members] >= 0].tolist():
            named = label_names(self.index, row)
            label = named if self.index.multi_label else named[0]
            labels.setdefault(int(self.groups.group[row]), {})[int(numbers[row])] = label
        return {group: [found[number] for number in sorted(found)] for group, found in labels.items()}
