"""The classes of a fine-tuning: how well each is known, and which are taken for which."""

import io
from html import escape

import numpy as np
from PIL import Image

from mae_kit.reports.html import image, note, percent, section, table, text_row
from mae_kit.training.metrics import Row, is_finite

IN_BARS = 40  # of more classes, the bars show the best and the worst
WITH_COUNTS = 12  # a larger confusion matrix shows its counts only under the pointer
IN_TABLE = 50  # a still larger one is a picture
PAIRS = 10  # of the classes that are confused most
COLUMNS = {"precision": "Precision", "recall": "Recall", "f1": "F1", "average_precision": "Average precision"}


def class_bars(result: Row) -> str:
    known = [(name, share) for name, share in result.get("per_class", {}).items() if is_finite(share)]
    ranked = sorted(known, key=lambda pair: -pair[1])
    if not ranked:
        return ""
    half, about = IN_BARS // 2, ""
    if len(ranked) > IN_BARS:
        about = note(f"The {half} best and the {half} worst of {len(ranked)} classes.")
        ranked = ranked[:half] + ranked[-half:]
    bars = "".join(
        f'<li><span>{escape(name)}</span><div><i style="width:{share:.2%}"></i></div><b>{percent(share)}</b></li>'
        for name, share in ranked
    )
    return section("Accuracy of each class", f"<ol class=bars>{bars}</ol>", about)


def class_table(result: Row) -> str:
    """Worst first; of images with one label and of those with any number of them alike."""
    ranked = sorted(result.get("of_classes", []), key=lambda row: row["f1"] if is_finite(row["f1"]) else 2)
    columns = {name: heading for name, heading in COLUMNS.items() if any(name in row for row in ranked)}
    lines = "".join(
        text_row((row["name"], f"{row['images']:,}", *(_cell(row[name]) for name in columns)))
        for row in ranked[:IN_TABLE]
    )
    cut = f"The {IN_TABLE} of {len(ranked)} classes that are known worst. " if len(ranked) > IN_TABLE else ""
    about = note(f"{cut}Images: how many of those scored have the class. -: nothing to have a share of.")
    return section("Class by class", table(("Class", "Images", *columns.values()), lines), about) if ranked else ""


def _cell(share: float | None) -> str:
    return "-" if share is None else percent(share)


def confusion(result: Row) -> str:
    counts, classes = np.array(result.get("confusion", []), dtype=float), result.get("classes", [])
    if not counts.size:
        return ""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    drawing = _heat_table(counts, shares, classes) if len(classes) <= IN_TABLE else _heat_picture(shares)
    about = note("A row is a true class, a column what was predicted; the color is the share of the row.")
    pairs = _confused_pairs(counts, classes)
    return section("Confusion matrix", f"<div class=pair><div class=scroll>{drawing}</div>{pairs}</div>", about)


def _heat_table(counts: np.ndarray, shares: np.ndarray, classes: list[str]) -> str:
    head = "".join(f"<th scope=col><span>{escape(name)}</span></th>" for name in classes)
    body = "".join(
        f"<tr><th scope=row>{escape(name)}</th>{_heat_cells(row, share, name, classes)}</tr>"
        for row, share, name in zip(counts, shares, classes, strict=True)
    )
    size = "heat" if len(classes) <= WITH_COUNTS else '"heat fine"'
    return f"<table class={size}><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>"


def _heat_cells(counts: np.ndarray, shares: np.ndarray, true: str, classes: list[str]) -> str:
    shown = len(classes) <= WITH_COUNTS
    return "".join(
        f'<td{" class=dark" if share > 0.55 else ""} style="--v:{share:.3f}" '
        f'title="{escape(true)}, predicted {escape(name)}: {count:.0f} ({percent(share)})">'
        f"{f'{count:.0f}' if shown and count else ''}</td>"
        for count, share, name in zip(counts, shares, classes, strict=True)
    )


def _heat_picture(shares: np.ndarray) -> str:
    """One pixel a pair of classes: blue, as opaque as the share is large."""
    pixels = np.zeros((*shares.shape, 4), np.uint8)
    pixels[..., :3] = (37, 99, 235)
    pixels[..., 3] = (255 * shares).round()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return image(buffer.getvalue(), "png", "Confusion matrix", "heat")


def _confused_pairs(counts: np.ndarray, classes: list[str]) -> str:
    wrong = counts * (1 - np.eye(len(counts)))
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = [(i, j) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[i, j]]
    rows = "".join(
        text_row((classes[i], classes[j], f"{counts[i, j]:.0f}", percent(counts[i, j] / counts[i].sum())))
        for i, j in pairs
    )
    names = ("True class", "Predicted as", "Times", "Share")
    return f"<div><h3>Most confused</h3>{table(names, rows)}</div>" if rows else ""
