"""The result of `evaluate`: scores with intervals, over layers and numbers of labels; rank of the features."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from mae_kit.evaluation import number_probes
from mae_kit.evaluation.bootstrap import METRICS, headline
from mae_kit.evaluation.features import CLASS, MEAN, PATCHES
from mae_kit.evaluation.patch_probes import KNN, PROBE
from mae_kit.reports.curves import ABOUT_KNN
from mae_kit.reports.drawing import COLORS, Chart, chart, dress, line
from mae_kit.reports.render import render
from mae_kit.training.metrics import Row, is_finite

TOKENS = {MEAN: "mean of patches", CLASS: "class token", PATCHES: "patch tokens"}
UNTRAINED = "untrained, "
BY_LAYER = ("knn", "fewshot 10", "probe", KNN, PROBE, number_probes.KNN, number_probes.PROBE)
STRANGER = "The untrained evaluation is of another encoder or of other images, and is not shown here."


def evaluation(found: Row, untrained: Row, step: int | None = None) -> Markup:
    """Show evaluation.json next to evaluation-untrained.json, which is the same architecture with fresh weights.

    Args:
        found: The first.
        untrained: The second; left out if it is of another encoder or other images.
        step: The last step of the run, if it is a pretraining.
    """
    if not (found or untrained):
        return Markup()
    notes = _outrun(found, step)
    if found and untrained and _of(found) != _of(untrained):
        untrained, notes = {}, [*notes, STRANGER]
    columns = _columns(found) | {f"{UNTRAINED}{name}": column for name, column in _columns(untrained).items()}
    extents = [
        (f"layer {one['layer']}, {TOKENS[one['token']]}", one) for one in (found or untrained).get("extents", [])
    ]
    return render(
        "evaluation.html",
        notes=notes,
        scores=_scores(columns),
        trained=_trained(found, untrained),
        charts=_charts(columns),
        extents=[(name, f"{one['rank']:.1f} of {one['dim']}", f"{one['spread']:.2g}") for name, one in extents],
        collapsed=[name for name, one in extents if one["collapsed"]],
        about_knn=ABOUT_KNN,
        value=lambda score: headline(score)[1],
    )


def _of(found: Row) -> tuple[Path, Row]:
    """What an encoder and its untrained counterpart have in common: the run, the architecture, and the images."""
    prints = {name: one for name, one in found.get("fingerprints", {}).items() if name != "weights"}
    place = Path(found.get("encoder", "")).resolve()
    return place.parent if place.suffix == ".safetensors" else place, prints


def _outrun(found: Row, step: int | None) -> list[str]:
    if step is None or found.get("step", step) == step:
        return []
    return [f"Of the encoder at step {found['step']:,}; the run has since come to step {step:,}."]


def _columns(found: Row) -> dict[str, dict[tuple[str, int], Row]]:
    """By token, and there by method and layer."""
    return {
        name: {(one["method"], one["layer"]): one for one in found["scores"] if one["token"] == token}
        for token, name in TOKENS.items()
        if any(one["token"] == token for one in found.get("scores", []))
    }


def method_name(method: str) -> str:
    """Name a method in words: `Ridge, 5 labels per class` for `fewshot 5`."""
    name, _, count = method.partition(" ")
    if name == "fewshot":
        return f"Ridge, {count} label{'' if count == '1' else 's'} per class"
    names = {
        "ridge": "Ridge regression",
        "knn": "kNN",
        "probe": "Linear probe",
        KNN: "kNN of patches",
        PROBE: "Linear probe of patches",
        number_probes.KNN: "kNN of numbers",
        number_probes.PROBE: "Ridge regression of numbers",
        "attentive": "Attentive probe",
        "finetune": "Fine-tuned",
    }
    return names.get(method, method)


def _scores(columns: dict[str, dict[tuple[str, int], Row]]) -> dict[str, Any]:
    """A row for each method and layer; the layer is shown if there are several."""
    keys = dict.fromkeys(key for column in columns.values() for key in column)
    several = len({layer for _, layer in keys}) > 1
    rows, before = [], ""
    for method, layer in keys:
        name, before = "" if method == before else method_name(method), method
        rows.append(
            (name, str(layer) if several else "", [column.get((method, layer), {}) for column in columns.values()])
        )
    metric = _metric(score for column in columns.values() for score in column.values())
    headings = ("Frozen", *(["Layer"] if several else []), *(name.capitalize() for name in columns))
    return {"headings": headings, "rows": rows, "metric": metric}


def _metric(scores: Iterable[Row]) -> str:
    metric, _ = headline(next((one for one in scores if "error" not in one), {}))
    return METRICS[metric]


def _trained(found: Row, untrained: Row) -> dict[str, Any]:
    sides = [{one["method"]: one for one in side.get("trained", [])} for side in (found, untrained)]
    metric = _metric(one for side in sides for one in side.values())
    known = {name: side for name, side in zip((metric, "Untrained"), sides, strict=True) if side}
    methods = dict.fromkeys(method for side in known.values() for method in side)
    return {
        "headings": ("Trained with labels", *known),
        "rows": [(method_name(method), "", [side.get(method, {}) for side in known.values()]) for method in methods],
        "errors": [
            f"{method_name(one['method'])}: {one['error']}" for side in sides for one in side.values() if "error" in one
        ],
    }


def _charts(columns: dict[str, dict[tuple[str, int], Row]]) -> list[Chart]:
    """Of the scores that are known at several layers, or for several numbers of labels."""
    last = max((layer for column in columns.values() for _, layer in column), default=0)
    panels = {
        f"{method_name(method)} by layer, %": {name: _points(column, method) for name, column in columns.items()}
        for method in BY_LAYER
    }
    panels["Few labels, %"] = {name: _shots(column, last) for name, column in columns.items()}
    shown = {title: lines for title, lines in panels.items() if any(len(points) > 1 for points in lines.values())}
    names = {title: f"evaluation-{''.join(filter(str.isalnum, title))}" for title in shown}
    return [
        chart(title, 2, partial(_draw, lines=lines, few="by layer" not in title), names[title])
        for title, lines in shown.items()
    ]


def _points(column: dict[tuple[str, int], Row], method: str) -> dict[int, Row]:
    return {layer: one for (name, layer), one in column.items() if name == method and is_finite(headline(one)[1])}


def _shots(column: dict[tuple[str, int], Row], layer: int) -> dict[int, Row]:
    """By labels per class, at one layer."""
    few = {name: one for (name, where), one in column.items() if name.startswith("fewshot ") and where == layer}
    return {int(name.split()[1]): one for name, one in few.items() if is_finite(headline(one)[1])}


def _draw(axes: Axes, lines: dict[str, dict[int, Row]], few: bool) -> None:
    """Draw lines with bands for their intervals, dashed if untrained; labels per class on a logarithmic axis."""
    for name, points in lines.items():
        color = COLORS[list(TOKENS.values()).index(name.removeprefix(UNTRAINED))]
        places = np.array(sorted(points))
        low, high = (np.array([100 * points[x][end] for x in places]) for end in ("low", "high"))
        axes.fill_between(places, low, high, color=color, alpha=0.2, linewidth=0)
        line(axes, places, np.array([100 * headline(points[x])[1] for x in places]), color, name)
        axes.lines[-1].set_linestyle("--" if name.startswith(UNTRAINED) else "-")
    known = sorted({x for points in lines.values() for x in points})
    dress(axes, "labels per class" if few else "layer", known[-1], legend=False)
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    if few:
        axes.set_xscale("log")
        axes.set_xlim(known[0] / 1.1, known[-1] * 1.1)
        axes.minorticks_off()
    axes.set_xticks(known, [str(x) for x in known])
