"""The metrics over the steps, drawn as SVG inside the page."""

from functools import partial
from typing import NamedTuple

from matplotlib.axes import Axes

from mae_kit.reports.drawing import COLORS, POINTS, chart, dress, line
from mae_kit.reports.html import note, section, warning
from mae_kit.training.metrics import Row, series


class Curve(NamedTuple):
    """One panel: metrics and what the legend calls them; values are drawn times `scale`, `from_zero` or not."""

    title: str
    names: dict[str, str]
    scale: float = 1
    from_zero: bool = False


LARGE = (
    Curve("Loss", {"loss": "training", "val_loss": "validation"}),
    Curve("Accuracy, %", {"val_top1": "top-1", "val_top5": "top-5", "knn_top1": "kNN top-1"}, 100),
    Curve(
        "Every class alike, %",
        {"val_map": "mean average precision", "val_macro_f1": "macro-F1", "knn_map": "kNN mean average precision"},
        100,
    ),
    Curve("Codes in use: their perplexity", {"perplexity": ""}, 1, True),
    Curve("What a code tells of its patch, bits", {"bits_per_code": ""}, 1, True),
)
SMALL = (
    Curve("Learning rate", {"lr": ""}, 1, True),
    Curve("Gradient norm, before clipping", {"gradient_norm": ""}, 1, True),
    Curve("Throughput, images per second", {"images_per_second": ""}, 1, True),
    Curve("Waiting for data, % of the time", {"data_wait": ""}, 100, True),
)
COLLAPSED = (
    "The codebook has collapsed: few of its codes are in use, or many mean the same, and they say little of an image. "
    "Train on, or take fewer codes."
)
ABOUT_KNN = (
    "A kNN score begins with that of untrained weights, and may fall before it rises: that is normal for masked "
    "pretraining; fine-tuning tells what the encoder is worth."
)


def curves(rows: list[Row]) -> str:
    charts = [_row("charts", LARGE, rows), _row("charts small", SMALL, rows)]
    if not any(charts):
        return ""
    averaged = note("Each point is the mean of several steps; the shade is their range.") if len(rows) > POINTS else ""
    knn = note(ABOUT_KNN) if any(series(rows, name)[0].size for name in ("knn_top1", "knn_map")) else ""
    _, collapsed = series(rows, "collapsed")
    codes = warning(COLLAPSED) if collapsed.size and collapsed[-1] else ""
    return section("Curves", codes, *charts, averaged, knn)


def _row(style: str, panels: tuple[Curve, ...], rows: list[Row]) -> str:
    """The panels that have something to show, side by side."""
    known = [curve for curve in panels if any(series(rows, name)[0].size for name in curve.names)]
    drawn = "".join(_chart(curve, rows, len(known)) for curve in known)
    return f'<div class="{style}">{drawn}</div>' if drawn else ""


def _chart(curve: Curve, rows: list[Row], panels: int) -> str:
    return chart(curve.title, panels, partial(_draw, curve=curve, rows=rows), curve.title.split()[0].lower())


def _draw(axes: Axes, curve: Curve, rows: list[Row]) -> None:
    for color, (name, label) in zip(COLORS, curve.names.items(), strict=False):
        steps, values = series(rows, name)
        line(axes, steps, values * curve.scale, color, label)
    dress(axes, "step", rows[-1]["step"], legend=len(curve.names) > 1)  # the same steps in every panel
    if curve.from_zero:
        axes.set_ylim(bottom=0)
