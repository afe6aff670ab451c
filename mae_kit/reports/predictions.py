"""Masks and boxes that a model finds: how well those of each class, and predictions next to the truth."""

from markupsafe import Markup

from mae_kit.files.run_folder import RunFolder
from mae_kit.reports.render import percents, pictures, render
from mae_kit.training.metrics import Row

OF_MASKS = {"pixels": "Fraction of the pixels", "iou": "IoU", "recall": "Recall"}
OF_BOXES = {"ap": "AP, IoU 0.5 to 0.95", "ap50": "AP, IoU 0.5"}


def masks(result: Row, run: RunFolder) -> Markup:
    """Show the classes of result.json, lowest IoU first, and the pictures of the run's predictions."""
    if not (rows := _lowest_first(result.get("iou_of_classes", []), "iou")):
        return Markup()
    cells, headings = [(row["name"], *percents(row, OF_MASKS)) for row in rows], ("Class", *OF_MASKS.values())
    return render("masks.html", headings=headings, rows=cells, pictures=pictures(run.predictions))


def boxes(result: Row, run: RunFolder) -> Markup:
    """Show the classes of result.json, lowest average precision first, and the pictures of boxes and of attention."""
    if not (rows := _lowest_first(result.get("ap_of_classes", []), "ap50")):
        return Markup()
    cells = [(row["name"], f"{row['objects']:,}", *percents(row, OF_BOXES)) for row in rows]
    shown = {"pictures": pictures(run.predictions), "attention": pictures(run.attention)}
    return render("boxes.html", headings=("Class", "Objects", *OF_BOXES.values()), rows=cells, **shown)


def _lowest_first(rows: list[Row], score: str) -> list[Row]:
    """Those without a score last."""
    return sorted(rows, key=lambda row: 2 if row[score] is None else row[score])
