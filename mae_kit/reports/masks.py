"""The masks of a segmentation: how well each class is found, and predictions next to the truth."""

from markupsafe import Markup

from mae_kit.files.run_folder import RunFolder
from mae_kit.reports.render import percents, pictures, render
from mae_kit.training.metrics import Row

COLUMNS = {"pixels": "Fraction of the pixels", "iou": "IoU", "recall": "Recall"}


def masks(result: Row, run: RunFolder) -> Markup:
    """Show the classes of result.json, lowest IoU first, and the pictures of the run's predictions."""
    rows = sorted(result.get("iou_of_classes", []), key=lambda row: 2 if row["iou"] is None else row["iou"])
    if not rows:
        return Markup()
    cells, headings = [(row["name"], *percents(row, COLUMNS)) for row in rows], ("Class", *COLUMNS.values())
    return render("masks.html", headings=headings, rows=cells, pictures=pictures(run.predictions))
