"""The pairs as a page for a person to judge: the most doubtful first, then random ones; bounded for any number."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mae_kit.data.index.labels import label_names, label_numbers
from mae_kit.data.loading.images import thumbnail
from mae_kit.duplicates.findings import Findings
from mae_kit.duplicates.pairs import FEATURES, LOOKS
from mae_kit.reports.cards import Card
from mae_kit.reports.render import data_uri, page, render

SHOWN = 24  # pairs a section
_GROUPS, _MEMBERS = 8, 8
_SIDE = 192  # px


class _Figure(NamedTuple):
    """Images side by side: what they have in common, and each with its caption."""

    about: str
    sides: list[tuple[str, str]]


class _Section(NamedTuple):
    title: str
    about: str
    figures: list[_Figure]
    wide: bool = False


def duplicates_page(findings: Findings, counts: dict[str, int]) -> str:
    """Make a complete HTML document."""
    pairs, own = findings.pairs, len(findings.index)
    order = np.argsort(pairs.score, kind="stable")
    looks, features = (order[pairs.evidence[order] == kind] for kind in (LOOKS, FEATURES))
    some = np.random.default_rng(0).permutation(len(pairs))
    in_evaluation = some[pairs.second[some] >= own]
    sections = (
        _section(findings, "Least similar in appearance", looks, "Sorted by their outlines."),
        _section(findings, "Least similar features", features, "Sorted by cosine similarity."),
        _section(findings, "Different labels", some[_disagree(findings, some)], "Random order."),
        _section(findings, "In the evaluation set", in_evaluation, "Random order; the left one is removed."),
        _largest(findings),
        _section(findings, "Random pairs", some, "Random order."),
    )
    shown = [section for section in sections if section.figures]
    body = render("duplicates.html", cards=_numbers(counts), sections=shown)
    return page(f"Duplicates in {findings.index.folder.resolve().name}", body)


def _numbers(counts: dict[str, int]) -> list[Card]:
    return [
        Card("Samples", f"{counts['samples']:,}"),
        Card("Kept", f"{counts['kept']:,}"),
        Card("Duplicates", f"{counts['duplicates']:,}", f"in {counts['groups']:,} groups"),
        Card("In the evaluation set", f"{counts['in_evaluation']:,}"),
        Card("Groups with different labels", f"{counts['label_conflicts']:,}"),
        Card("Not compared", f"{counts['not_compared']:,}", "cannot be decoded"),
        Card("Of one color", f"{counts['plain']:,}", "compared by their bytes only"),
    ]


def _disagree(findings: Findings, which: np.ndarray) -> np.ndarray:
    """Pairs of two samples with different labels."""
    first, second, own = findings.pairs.first[which], findings.pairs.second[which], len(findings.index)
    labels = np.append(label_numbers(findings.index), -1)
    one, other = labels[first], labels[np.minimum(second, own)]
    return (one >= 0) & (other >= 0) & (one != other)


def _section(findings: Findings, title: str, which: np.ndarray, order: str) -> _Section:
    more = f" {len(which) - SHOWN:,} more are not shown." if len(which) > SHOWN else ""
    return _Section(title, order + more, [_pair(findings, pair) for pair in which[:SHOWN].tolist()])


def _pair(findings: Findings, pair: int) -> _Figure:
    rows = [int(findings.pairs.first[pair]), int(findings.pairs.second[pair])]
    about = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{value} bits" if name == "distance" else str(value)
        for name, value in findings.evidence(pair).items()
    )
    return _figure(findings, rows, about)


def _largest(findings: Findings) -> _Section:
    """Members of a group may be connected only through others: large groups show whether that went too far."""
    sizes = np.bincount(findings.groups.group)
    groups = [group for group in np.argsort(-sizes, kind="stable")[:_GROUPS].tolist() if sizes[group] > 2]
    figures = []
    for group in groups:
        rows = np.flatnonzero(findings.groups.group == group)
        chosen = rows[np.linspace(0, len(rows) - 1, min(_MEMBERS, len(rows))).round().astype(int)]
        figures.append(_figure(findings, chosen.tolist(), f"{sizes[group]:,} images"))
    return _Section("The largest groups", "Up to eight images of each.", figures, wide=True)


def _figure(findings: Findings, rows: Sequence[int], about: str) -> _Figure:
    return _Figure(about, [(_thumbnail(findings, row), _caption(findings, row)) for row in rows])


def _thumbnail(findings: Findings, row: int) -> str:
    index, place = findings.source(row)
    return data_uri(thumbnail(index.read(place), _SIDE, index.scale), "jpeg")


def _caption(findings: Findings, row: int) -> str:
    index, place = findings.source(row)
    labels = label_names(index, place)
    named = "".join(f", {label}" if index.classes else f", label {label}" for label in labels)
    where = index.file(place) or f"{index.shards[int(index.shard[place])]} {index.keys[place]}"
    side = ", evaluation" if row >= len(findings.index) else ""
    return f"{where}: {index.width[place]} × {index.height[place]}{named}{side}"
