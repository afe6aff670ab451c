"""Line charts as SVG, in the text color and font of the page."""

import io
import re
from collections.abc import Callable
from typing import NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

POINTS = 200  # of a curve; more are averaged, and their range is a shaded band
PAGE_INCHES = 10.6  # width of the page's column at 96 px an inch, so that font sizes are those of the page
GAP_INCHES = 0.25
INSIDE = 4  # labels that fit in a legend inside the axes
INK = "#010203"  # replaced by the text color of the page
COLORS = ("#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#ec4899", "#64748b")  # readable on white and on black


class Chart(NamedTuple):
    """A titled SVG drawing."""

    title: str
    svg: Markup


def chart(title: str, panels: int, draw: Callable[[Axes], None], prefix: str) -> Chart:
    """Draw a chart for a page.

    Args:
        title: Shown above it.
        panels: Number of charts in its row, which holds two to four.
        draw: Draws the lines.
        prefix: Makes the ids in the drawing unique on the page.
    """
    width = PAGE_INCHES / min(4, max(2, panels)) - GAP_INCHES
    colors = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    with matplotlib.rc_context(
        {**colors, "svg.fonttype": "none", "svg.hashsalt": "mae_kit", "font.size": 9, "text.parse_math": False}
    ):
        figure = Figure(figsize=(width, 1 + 0.36 * width), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        svg = _svg(figure, prefix)
    return Chart(title, Markup(svg))


def line(axes: Axes, places: np.ndarray, values: np.ndarray, color: str, label: str, dashes: str = "-") -> None:
    """Draw a curve; one of more than `POINTS` is averaged, with a band for its range."""
    if not places.size:
        return
    several = -(-places.size // POINTS)
    parts = [slice(start, start + several) for start in range(0, places.size, several)]
    x, y = [places[part].mean() for part in parts], [values[part].mean() for part in parts]
    if several > 1:
        low, high = [values[part].min() for part in parts], [values[part].max() for part in parts]
        axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    marker = "." if places.size <= 30 else ""
    axes.plot(x, y, color=color, label=label, linewidth=1.6, linestyle=dashes, marker=marker, clip_on=False)


def dress(axes: Axes, along: str, last: float, legend: bool) -> None:
    """Style the axes; `along` names the horizontal axis, which ends at `last`."""
    axes.set(xlabel=along, xlim=(0, max(1, 1.02 * last)))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.ticklabel_format(axis="y", scilimits=(-3, 5))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#888888", alpha=0.25, linewidth=0.7)
    names = axes.get_legend_handles_labels()[1]
    if legend and len(names) > INSIDE:
        axes.figure.legend(frameon=False, loc="outside right upper")  # type: ignore[union-attr]
    elif legend:
        axes.legend(frameon=False)


def _svg(figure: Figure, prefix: str) -> str:
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text[text.index("<svg") :]).replace(INK, "currentColor")
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
