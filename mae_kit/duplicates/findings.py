"""Find duplicates, and report them sample by sample."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int64

from mae_kit.data.index.labels import label_names, label_numbers
from mae_kit.data.index.open import Index
from mae_kit.duplicates.fingerprints import fingerprint
from mae_kit.duplicates.groups import Groups, grouped
from mae_kit.duplicates.hashes import ORIENTATIONS
from mae_kit.duplicates.pairs import FEATURES, LOOKS, Pairs, joined, similar_in_appearance
from mae_kit.errors import UserError
from mae_kit.parallel import Engine

EVIDENCE = ("same bytes", "similar appearance", "similar features")


@dataclass(frozen=True, eq=False)
class Findings:
    """Duplicates among n samples, and after them m of an evaluation set.

    Attributes:
        index: The samples.
        evaluation: The evaluation set; None without one.
        pairs: Pairs of duplicates.
        groups: Pairs joined to groups.
        not_compared: How many samples cannot be decoded.
        plain: How many samples are of one color, so that only equal bytes count.
    """

    index: Index
    evaluation: Index | None
    pairs: Pairs
    groups: Groups
    not_compared: int
    plain: int

    @cached_property
    def conflicts(self) -> Int64[np.ndarray, " c"]:
        """Groups whose samples have different labels."""
        return self.groups.conflicting(label_numbers(self.index))

    def counts(self) -> dict[str, int]:
        """Count samples, duplicates and groups."""
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
            "not_compared": self.not_compared,
            "plain": self.plain,
        }

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield one record for each removed sample: location, kept representative, evidence."""
        conflicts = self._labels_of_conflicts()
        for row, pair in zip(*self._closest(), strict=True):
            stays, group = int(self.groups.stays[row]), int(self.groups.group[row])
            other = int(self.pairs.second[pair] if self.pairs.first[pair] == row else self.pairs.first[pair])
            line = self.place(row) | {"reason": "evaluation" if stays >= len(self.index) else "duplicate"}
            line |= {"of": self.place(stays)} | ({"through": self.place(other)} if other != stays else {})
            yield line | self.evidence(pair) | ({"labels": conflicts[group]} if group in conflicts else {})

    def place(self, row: int) -> dict[str, str]:
        """Name shard and key of a row, and its file where that is known."""
        index, row = self.source(row)
        return index.place(row)

    def source(self, row: int) -> tuple[Index, int]:
        """Give the index that contains a row, and the row in it."""
        if row < len(self.index) or self.evaluation is None:
            return self.index, row
        return self.evaluation, row - len(self.index)

    def evidence(self, pair: int) -> dict[str, Any]:
        """Say why two samples are duplicates."""
        kind, score = int(self.pairs.evidence[pair]), round(float(self.pairs.score[pair]), 4)
        found: dict[str, Any] = {"evidence": EVIDENCE[kind]}
        if kind == LOOKS:
            found |= {"orientation": ORIENTATIONS[int(self.pairs.orientation[pair])]}
            found |= {"distance": int(self.pairs.distance[pair]), "outlines": score}
        return found | ({"similarity": score} if kind == FEATURES else {})

    def _closest(self) -> tuple[list[int], list[int]]:
        """Give the removed samples, and for each the pair with the best evidence."""
        pairs, dropped = self.pairs, self.groups.dropped()
        order = np.lexsort((-pairs.score, pairs.distance, pairs.evidence))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        best = np.full(len(self.groups.group), len(order))
        for rows in (pairs.first, pairs.second):
            np.minimum.at(best, rows, rank)
        return dropped.tolist(), order[best[dropped]].tolist()

    def _labels_of_conflicts(self) -> dict[int, list[Any]]:
        """Give the labels of each group with different labels; a list for each set of classes if multi-label."""
        members = np.flatnonzero(np.isin(self.groups.group[: len(self.index)], self.conflicts))
        numbers = label_numbers(self.index)
        labels: dict[int, dict[int, Any]] = {}
        for row in members[numbers[members] >= 0].tolist():
            named = label_names(self.index, row)
            label = named if self.index.multi_label else named[0]
            labels.setdefault(int(self.groups.group[row]), {})[int(numbers[row])] = label
        return {group: [found[number] for number in sorted(found)] for group, found in labels.items()}


def find(
    index: Index,
    evaluation: Index | None,
    distance: int,
    workers: int,
    engine: Engine,
    by_features: Callable[[list[Index]], Pairs] | None = None,
) -> Findings:
    """Compute fingerprints, pairs and groups.

    Args:
        index: The samples.
        evaluation: An evaluation set that they are compared with; None for none.
        distance: Maximum number of differing bits of the 64-bit hashes of duplicates.
        workers: Number of shards that are fingerprinted at once.
        engine: Where they are.
        by_features: Finds further pairs, in the indices one after the other; None for none.

    Raises:
        UserError: No sample can be decoded, or a single one.
    """
    sides = [index] if evaluation is None else [index, evaluation]
    prints = fingerprint(sides, workers, engine)
    decoded, plain = prints.decoded[: len(index)], prints.plain[: len(index)]
    if not decoded.any():
        fix = "run `mae-kit index` on the shards, which names what is damaged"
        raise UserError("dedup.nothing", f"none of {len(index):,} images can be decoded: nothing was compared", fix)
    if prints.decoded.sum() < 2:
        what = "there is one image that can be decoded: nothing was compared"
        raise UserError("dedup.nothing.one", what, "give more images, or others with --against")
    pairs = similar_in_appearance(prints, len(index), distance)
    if by_features:
        pairs = joined([pairs, by_features(sides)])
    groups = grouped(pairs, index, sum(map(len, sides[1:])))
    return Findings(index, evaluation, pairs, groups, int((~decoded).sum()), int(plain.sum()))
