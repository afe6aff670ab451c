"""The boxes of a detection: how well each class is found, and predictions next to the truth."""

from markupsafe import Markup

from mae_kit.files.run_folder import RunFolder
from mae_kit.reports.render import percents, pictures, render
from mae_kit.training.metrics import Row

COLUMNS = {"ap": "AP, IoU 0.5 to 0.95", "ap50": "AP, IoU 0.5"}


def boxes(result: Row, run: RunFolder) -> Markup:
    """Show the classes of result.json, lowest average precision first, and the pictures of boxes and of attention."""
    rows = sorted(result.get("ap_of_classes", []), key=lambda row: 2 if row["ap50"] is None else row["ap50"])
    if not rows:
        return Markup()
    cells = [(row["name"], f"{row['objects']:,}", *percents(row, COLUMNS)) for row in rows]
    shown = {"pictures": pictures(run.predictions), "attention": pictures(run.attention)}
    return render("boxes.html", headings=("Class", "Objects", *COLUMNS.values()), rows=cells, **shown)
