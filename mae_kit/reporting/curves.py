"""The metrics over the steps, drawn as SVG inside the page."""

import io
import re
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from mae_kit.reporting.folder import Row, series
from mae_kit.reporting.page import note, section

POINTS = 200  # of a curve; where there are more steps they are averaged, and their range is shaded
PAGE_INCHES = 10.6  # width of the page's column at 96 px an inch: letters are drawn at the size they are shown
GAP_INCHES = 0.25
INK = "#010203"  # in a drawing, replaced by the page's own text colour
COLOURS = ("#3b82f6", "#f59e0b", "#10b981")  # read on white and on black


class Curve(NamedTuple):
    """One panel: metrics and what the legend calls them; values are drawn times `scale`, `from_zero` or not."""

    title: str
    names: dict[str, str]
    scale: float = 1
    from_zero: bool = False


LARGE = (
    Curve("Loss", {"loss": "training", "val_loss": "validation"}),
    Curve("Accuracy, %", {"val_top1": "top-1", "val_top5": "top-5", "knn_top1": "kNN top-1"}, 100),
    Curve("Codes in use: their perplexity", {"perplexity": ""}, 1, True),
)
SMALL = (
    Curve("Learning rate", {"lr": ""}, 1, True),
    Curve("Gradient norm, before clipping", {"gradient_norm": ""}, 1, True),
    Curve("Throughput, images per second", {"images_per_second": ""}, 1, True),
    Curve("Waiting for data, % of the time", {"data_wait": ""}, 100, True),
)
ABOUT_KNN = "A low kNN score is normal for masked pretraining; fine-tuning tells what the encoder is worth."


def curves(rows: list[Row]) -> str:
    charts = [_row("charts", LARGE, rows), _row("charts small", SMALL, rows)]
    if not any(charts):
        return ""
    averaged = note("Each point is the mean of several steps; the shade is their range.") if len(rows) > POINTS else ""
    knn = note(ABOUT_KNN) if series(rows, "knn_top1")[0].size else ""
    return section("Curves", *charts, averaged, knn)


def _row(style: str, panels: tuple[Curve, ...], rows: list[Row]) -> str:
    """The panels that have something to show, side by side; two at the least, or one would fill the page."""
    known = [curve for curve in panels if any(series(rows, name)[0].size for name in curve.names)]
    share = PAGE_INCHES / max(2, len(known)) - GAP_INCHES
    drawn = "".join(_chart(curve, rows, width=share) for curve in known)
    return f'<div class="{style}">{drawn}</div>' if drawn else ""


def _chart(curve: Curve, rows: list[Row], width: float) -> str:
    colours = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    with matplotlib.rc_context({**colours, "svg.fonttype": "none", "svg.hashsalt": "mae_kit", "font.size": 9}):
        figure = Figure(figsize=(width, 1 + 0.36 * width), layout="constrained")
        axes = figure.subplots()
        for colour, (name, label) in zip(COLOURS, curve.names.items(), strict=False):
            steps, values = series(rows, name)
            _line(axes, steps, values * curve.scale, colour, label)
        _dress(axes, curve, rows[-1]["step"])
        svg = _svg(figure, prefix=curve.title.split()[0].lower())
    return f"<figure><figcaption>{curve.title}</figcaption>{svg}</figure>"


def _line(axes: Axes, steps: np.ndarray, values: np.ndarray, colour: str, label: str) -> None:
    if not steps.size:
        return
    several = -(-steps.size // POINTS)
    parts = [slice(start, start + several) for start in range(0, steps.size, several)]
    x, y = [steps[part].mean() for part in parts], [values[part].mean() for part in parts]
    if several > 1:
        low, high = [values[part].min() for part in parts], [values[part].max() for part in parts]
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, y, color=colour, label=label, linewidth=1.6, marker="." if steps.size <= 30 else "")


def _dress(axes: Axes, curve: Curve, last: int) -> None:
    axes.set(xlabel="step", xlim=(0, max(1, 1.02 * last)))  # the same steps in every panel
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.ticklabel_format(axis="y", scilimits=(-3, 5), useMathText=True)
    if curve.from_zero:
        axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#888888", alpha=0.25, linewidth=0.7)
    if len(curve.names) > 1:
        axes.legend(frameon=False)


def _svg(figure: Figure, prefix: str) -> str:
    """Inline SVG in the page's ink and type; ids get a prefix, since all drawings share one page."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text[text.index("<svg") :]).replace(INK, "currentColor")
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
