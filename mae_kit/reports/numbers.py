"""The numbers of a regression: how well each is predicted, and every prediction over the truth."""

from functools import partial

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from mae_kit.reports.drawing import COLORS, Chart, chart
from mae_kit.reports.render import render
from mae_kit.training.metrics import Row

CHARTS = 12


def numbers(result: Row) -> Markup:
    """Show the numbers of result.json and, of the first of them, predictions over the truth."""
    rows = result.get("of_numbers", [])
    if not rows:
        return Markup()
    cells = [(row["name"], f"{row['r2']:.3f}", f"{row['mae']:.4g}", f"{row['mean']:.4g}") for row in rows]
    pairs = zip(rows[:CHARTS], result.get("true", []), result.get("predicted", []), strict=False)
    charts = [_chart(row["name"], np.array(true), np.array(found)) for row, true, found in pairs]
    return render("numbers.html", headings=("Number", "R2", "Mean absolute error", "Mean"), rows=cells, charts=charts)


def _chart(name: str, true: np.ndarray, found: np.ndarray) -> Chart:
    prefix = f"number-{name.encode().hex()}"
    return chart(name, 3, partial(_draw, true=true, found=found), prefix)


def _draw(axes: Axes, true: np.ndarray, found: np.ndarray) -> None:
    ends = [min(true.min(), found.min()), max(true.max(), found.max())]
    axes.plot(ends, ends, color="#888888", linewidth=0.8)
    axes.plot(true, found, ".", color=COLORS[0], alpha=0.5)
    axes.set(xlabel="true", ylabel="predicted")
    axes.spines[["top", "right"]].set_visible(False)
