"""Fingerprints, pairs and groups of a folder of shards, and of those it is held against."""

from collections.abc import Callable
from typing import NamedTuple

from mae_kit.data.index.open import Index
from mae_kit.duplicates.findings import Findings
from mae_kit.duplicates.fingerprints import fingerprint
from mae_kit.duplicates.groups import grouped
from mae_kit.duplicates.pairs import Pairs, joined, looking_alike
from mae_kit.parallel import Engine


class Found(NamedTuple):
    """What was found, and how much of it."""

    findings: Findings
    counts: dict[str, int]


def find(
    index: Index,
    evaluation: Index | None,
    distance: int,
    workers: int,
    engine: Engine,
    by_features: Callable[[list[Index]], Pairs] | None = None,
) -> Found:
    """All of it.

    Args:
        index: The samples.
        evaluation: What they are held against; None for nothing.
        distance: Bits of 64 in which the hashes of copies may differ.
        workers: Shards at once that are fingerprinted.
        engine: Where.
        by_features: Finds more pairs, in the indices one behind the other; None for none.
    """
    sides = [index] if evaluation is None else [index, evaluation]
    prints = fingerprint(sides, workers, engine)
    pairs = looking_alike(prints, len(index), distance)
    if by_features:
        pairs = joined([pairs, by_features(sides)])
    findings = Findings(index, evaluation, pairs, grouped(pairs, index, sum(map(len, sides[1:]))))
    decoded, plain = prints.decoded[: len(index)], prints.plain[: len(index)]
    counts = {"not_compared": int((~decoded).sum()), "plain": int(plain.sum())}
    return Found(findings, findings.counts() | counts)
