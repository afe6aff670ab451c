"""The pairs as a page, for a person to judge: the most doubtful first, some at random; bounded, however many."""

import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from mae_kit.data.decode import decode_scaled
from mae_kit.data.index.labels import label_names, label_numbers
from mae_kit.duplicates.findings import Findings
from mae_kit.duplicates.pairs import FEATURES, LOOKS
from mae_kit.reports.cards import card
from mae_kit.reports.html import image, note, page, section

SHOWN = 24  # pairs a section
_GROUPS, _MEMBERS = 8, 8
_SIDE = 192  # px


def duplicates_page(findings: Findings, counts: dict[str, int]) -> str:
    """A whole HTML document."""
    pairs, own = findings.pairs, len(findings.index)
    likeness = np.argsort(pairs.likeness, kind="stable")
    looks, features = (likeness[pairs.evidence[likeness] == kind] for kind in (LOOKS, FEATURES))
    some = np.random.default_rng(0).permutation(len(pairs))
    sections = (
        _numbers(counts),
        _section(findings, "The least alike of those that look alike", looks, "Sorted by their outlines."),
        _section(findings, "The least alike by their features", features, "Sorted by their cosine."),
        _section(findings, "Different labels", some[_disagree(findings, some)], "At random."),
        _section(findings, "In the evaluation set", some[pairs.second[some] >= own], "At random; the left one goes."),
        _largest(findings),
        _section(findings, "Any pairs", some, "At random."),
    )
    return page(f"Duplicates in {findings.index.folder.resolve().name}", *sections)


def _numbers(counts: dict[str, int]) -> str:
    cards = [
        card("Samples", f"{counts['samples']:,}"),
        card("Stay", f"{counts['kept']:,}"),
        card("Duplicates", f"{counts['duplicates']:,}", f"in {counts['groups']:,} groups"),
        card("In the evaluation set", f"{counts['in_evaluation']:,}"),
        card("Groups with different labels", f"{counts['label_conflicts']:,}"),
        card("Not compared", f"{counts['not_compared']:,}", "do not decode"),
        card("Of one color", f"{counts['plain']:,}", "compared by their bytes alone"),
    ]
    return f"<dl class=cards>{''.join(cards)}</dl>"


def _disagree(findings: Findings, which: np.ndarray) -> np.ndarray:
    """Pairs of two samples with different labels."""
    first, second, own = findings.pairs.first[which], findings.pairs.second[which], len(findings.index)
    labels = np.append(label_numbers(findings.index), -1)
    one, other = labels[first], labels[np.minimum(second, own)]
    return (one >= 0) & (other >= 0) & (one != other)


def _section(findings: Findings, title: str, which: np.ndarray, order: str) -> str:
    if not len(which):
        return ""
    more = f" {len(which) - SHOWN:,} more are not shown." if len(which) > SHOWN else ""
    shown = "".join(_pair(findings, pair) for pair in which[:SHOWN].tolist())
    return section(title, note(order + more), f"<div class=couples>{shown}</div>")


def _pair(findings: Findings, pair: int) -> str:
    rows = [int(findings.pairs.first[pair]), int(findings.pairs.second[pair])]
    said = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{value} bits" if name == "distance" else str(value)
        for name, value in findings.evidence(pair).items()
    )
    return _figure(findings, rows, said)


def _largest(findings: Findings) -> str:
    """Groups hang together through third ones: the large ones show whether that went too far."""
    sizes = np.bincount(findings.groups.group)
    groups = [group for group in np.argsort(-sizes, kind="stable")[:_GROUPS].tolist() if sizes[group] > 2]
    figures = []
    for group in groups:
        rows = np.flatnonzero(findings.groups.group == group)
        chosen = rows[np.linspace(0, len(rows) - 1, min(_MEMBERS, len(rows))).round().astype(int)]
        figures.append(_figure(findings, chosen.tolist(), f"{sizes[group]:,} pictures"))
    shown = f"<div class='couples wide'>{''.join(figures)}</div>"
    return section("The largest groups", note("Up to eight pictures of each."), shown) if groups else ""


def _figure(findings: Findings, rows: Sequence[int], said: str) -> str:
    sides = "".join(f"<div>{_picture(findings, row)}<small>{_caption(findings, row)}</small></div>" for row in rows)
    return f"<figure><figcaption>{escape(said)}</figcaption><div class=sides>{sides}</div></figure>"


def _picture(findings: Findings, row: int) -> str:
    index, place = findings.source(row)
    picture = Image.fromarray(decode_scaled(index.read(place), _SIDE, _SIDE))
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    return image(buffer.getvalue(), "jpeg", f"{index.keys[place]}")


def _caption(findings: Findings, row: int) -> str:
    index, place = findings.source(row)
    labels = label_names(index, place)
    named = "".join(f", {label}" if index.classes else f", label {label}" for label in labels)
    where = f"{index.shards[int(index.shard[place])]} {index.keys[place]}"
    side = ", evaluation" if row >= len(findings.index) else ""
    return escape(f"{where}: {index.width[place]} × {index.height[place]}{named}{side}")
