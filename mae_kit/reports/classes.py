"""The classes of a fine-tuning: the accuracy of each, and which are taken for which."""

import io
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from mae_kit.reports.render import data_uri, percent, percents, render
from mae_kit.training.metrics import Row, is_finite

IN_BARS = 40  # of more classes, the bars show the best and the worst
WITH_COUNTS = 12  # classes up to which the confusion matrix prints its counts; beyond, they are tooltips
IN_TABLE = 50  # classes up to which the confusion matrix is a table; beyond, it is an image
PAIRS = 10  # of the classes that are confused most
COLUMNS = {"precision": "Precision", "recall": "Recall", "f1": "F1", "average_precision": "Average precision"}


def classes(result: Row) -> Markup:
    """Show accuracy, precision, recall and confusions of result.json, as far as they are in it."""
    known = [(name, recall) for name, recall in result.get("per_class", {}).items() if is_finite(recall)]
    sections = {"bars": _bars(known), "table": _table(result.get("of_classes", [])), "confusion": _confusion(result)}
    return render("classes.html", classes=len(known), **sections) if any(sections.values()) else Markup()


def _bars(known: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Best first."""
    ranked, half = sorted(known, key=lambda pair: -pair[1]), IN_BARS // 2
    return ranked if len(ranked) <= IN_BARS else ranked[:half] + ranked[-half:]


def _table(rows: list[Row]) -> dict[str, Any]:
    """Lowest F1 first."""
    ranked = sorted(rows, key=lambda row: row["f1"] if is_finite(row["f1"]) else 2)
    columns = {name: heading for name, heading in COLUMNS.items() if any(name in row for row in rows)}
    cells = [(row["name"], f"{row['images']:,}", *percents(row, columns)) for row in ranked[:IN_TABLE]]
    return {"headings": ("Class", "Images", *columns.values()), "rows": cells, "classes": len(rows)} if rows else {}


def _confusion(result: Row) -> dict[str, Any]:
    counts, names = np.array(result.get("confusion", []), dtype=int), result.get("classes", [])
    if not counts.size:
        return {}
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows = [
        (name, list(zip(names, counts[i].tolist(), fractions[i].tolist(), strict=True))) for i, name in enumerate(names)
    ]
    return {
        "classes": names,
        "with_counts": len(names) <= WITH_COUNTS,
        "rows": rows,
        "image": _heat_map(fractions) if len(names) > IN_TABLE else "",
        "pairs": _confused_pairs(counts, names),
    }


def _heat_map(fractions: np.ndarray) -> str:
    """One blue pixel for each pair of classes, as opaque as the fraction is large."""
    pixels = np.zeros((*fractions.shape, 4), np.uint8)
    pixels[..., :3] = (37, 99, 235)
    pixels[..., 3] = (255 * fractions).round()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return data_uri(buffer.getvalue(), "png")


def _confused_pairs(counts: np.ndarray, names: list[str]) -> list[tuple[str, str, str, str]]:
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = [(i, j) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[i, j]]
    return [(names[i], names[j], str(counts[i, j]), percent(counts[i, j] / counts[i].sum())) for i, j in pairs]
