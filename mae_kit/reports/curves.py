"""Metrics over steps."""

from functools import partial
from typing import NamedTuple

from markupsafe import Markup
from matplotlib.axes import Axes

from mae_kit.reports.drawing import COLORS, POINTS, Chart, chart, dress, line
from mae_kit.reports.render import render
from mae_kit.training.metrics import Row, series


class Curve(NamedTuple):
    """A chart: metrics with their labels, multiplied by `scale`; `from_zero` starts the vertical axis at 0."""

    title: str
    names: dict[str, str]
    scale: float = 1
    from_zero: bool = False


LARGE = (
    Curve("Loss", {"loss": "training", "val_loss": "validation"}),
    Curve("Mean IoU, %", {"val_miou": ""}, 100),
    Curve("Mean average precision, %", {"val_map50": "IoU 0.5", "val_map": "IoU 0.5 to 0.95"}, 100),
    Curve("R2", {"val_r2": ""}),
    Curve("Accuracy, %", {"val_top1": "top-1", "val_top5": "top-5", "knn_top1": "kNN top-1"}, 100),
    Curve(
        "Means over classes, %",
        {"val_map": "mean average precision", "val_macro_f1": "macro-F1", "knn_map": "kNN mean average precision"},
        100,
    ),
    Curve("Perplexity of the codes", {"perplexity": ""}, 1, True),
    Curve("Information of a code about its patch, bits", {"bits_per_code": ""}, 1, True),
)
SMALL = (
    Curve("Learning rate", {"lr": ""}, 1, True),
    Curve("Gradient norm, before clipping", {"gradient_norm": ""}, 1, True),
    Curve("Throughput, images per second", {"images_per_second": ""}, 1, True),
    Curve("Waiting for data, % of the time", {"data_wait": ""}, 100, True),
)
COLLAPSED = (
    "The codebook has collapsed: few codes are used, or many have the same meaning. Train longer, or use fewer codes."
)
ABOUT_KNN = (
    "A kNN score starts at that of untrained weights, and may fall before it rises: this is normal in masked "
    "pretraining. Fine-tuning is what measures the encoder."
)


def curves(rows: list[Row]) -> Markup:
    """Draw the metrics that were logged."""
    large, small = _charts(LARGE, rows), _charts(SMALL, rows)
    if not (large or small):
        return Markup()
    _, collapsed = series(rows, "collapsed")
    return render(
        "curves.html",
        large=large,
        small=small,
        collapsed=COLLAPSED if collapsed.size and collapsed[-1] else "",
        averaged=len(rows) > POINTS,
        about_knn=ABOUT_KNN if any(series(rows, name)[0].size for name in ("knn_top1", "knn_map")) else "",
    )


def _charts(curves: tuple[Curve, ...], rows: list[Row]) -> list[Chart]:
    """Charts of the metrics that have values."""
    known = [curve for curve in curves if any(series(rows, name)[0].size for name in curve.names)]
    return [
        chart(curve.title, len(known), partial(_draw, curve=curve, rows=rows), curve.title.split()[0].lower())
        for curve in known
    ]


def _draw(axes: Axes, curve: Curve, rows: list[Row]) -> None:
    for color, (name, label) in zip(COLORS, curve.names.items(), strict=False):
        steps, values = series(rows, name)
        line(axes, steps, values * curve.scale, color, label)
    dress(axes, "step", rows[-1]["step"], legend=len(curve.names) > 1)  # the same steps in every panel
    if curve.from_zero:
        axes.set_ylim(bottom=0)
