"""What `evaluate` found an encoder to be worth: scores with intervals, over layers and labels; rank of the features."""

from collections.abc import Iterable
from functools import partial
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from mae_kit.evaluation.bootstrap import METRICS, headline
from mae_kit.evaluation.features import CLASS, MEAN
from mae_kit.reports.curves import ABOUT_KNN
from mae_kit.reports.drawing import COLORS, chart, dress, line
from mae_kit.reports.html import note, percent, section, table, text_row, warning
from mae_kit.training.metrics import Row, is_finite

TOKENS = {MEAN: "mean of patches", CLASS: "class token"}
UNTRAINED = "untrained, "
BY_LAYER = ("knn", "fewshot 10", "probe")
COLLAPSED = (
    "The features of {} have collapsed: images can hardly be told apart by them, and no score of theirs means much."
)

STRANGER = "evaluation-untrained.json is of another encoder or of other images, and is not shown here."


def evaluation(found: Row, untrained: Row, step: int | None = None) -> str:
    """Of evaluation.json, and beside it evaluation-untrained.json, of the same architecture under fresh weights.

    Args:
        found: The first.
        untrained: The second; left out where it is of another encoder, or of other images.
        step: That the run has come to, where it is a pretraining.
    """
    if not (found or untrained):
        return ""
    about = _outrun(found, step)
    if found and untrained and _of(found) != _of(untrained):
        untrained, about = {}, about + note(STRANGER)
    scores = _columns(found) | {f"{UNTRAINED}{name}": column for name, column in _columns(untrained).items()}
    parts = (about, _scores(scores), _trained(found, untrained), _charts(scores), _extents(found or untrained))
    return section("What the encoder is worth", *parts)


def _of(found: Row) -> tuple[Path, Row]:
    """What an encoder shares with itself before its training: the run, the architecture, and what it is judged on."""
    prints = {name: one for name, one in found.get("fingerprints", {}).items() if name != "weights"}
    place = Path(found.get("encoder", "")).resolve()
    return place.parent if place.suffix == ".safetensors" else place, prints


def _outrun(found: Row, step: int | None) -> str:
    if step is None or found.get("step", step) == step:
        return ""
    return note(f"Of the encoder at step {found['step']:,}; the run has since come to step {step:,}.")


def _columns(found: Row) -> dict[str, dict[tuple[str, int], Row]]:
    """By token, and there by method and layer."""
    return {
        name: {(one["method"], one["layer"]): one for one in found["scores"] if one["token"] == token}
        for token, name in TOKENS.items()
        if any(one["token"] == token for one in found.get("scores", []))
    }


def method_name(method: str) -> str:
    """As people say it: `Ridge on 5 labels a class` for `fewshot 5`."""
    name, _, count = method.partition(" ")
    if name == "fewshot":
        return f"Ridge on {count} label{'' if count == '1' else 's'} a class"
    if name == "blocks":
        return f"Last {count} blocks fine-tuned" if count != "1" else "Last block fine-tuned"
    names = {"knn": "kNN", "probe": "Linear probe", "attentive": "Attentive probe", "finetune": "Fine-tuned"}
    return names.get(method, method)


def _scores(columns: dict[str, dict[tuple[str, int], Row]]) -> str:
    """A row a method and layer; the layer is not said where there is one alone."""
    rows = dict.fromkeys(row for column in columns.values() for row in column)
    several = len({layer for _, layer in rows}) > 1
    lines, told = [], ""
    for method, layer in rows:
        cells = (_cell(column.get((method, layer), {})) for column in columns.values())
        name, told = "" if method == told else method_name(method), method
        lines.append(f"<tr><td>{escape(name)}</td>{f'<td>{layer}</td>' if several else ''}{''.join(cells)}</tr>")
    headings = ("Frozen", *(["Layer"] if several else []), *(name.capitalize() for name in columns))
    metric = _metric(score for column in columns.values() for score in column.values())
    about = note(f"{metric} on unseen images, with its 95% interval over images and draws of labels. {ABOUT_KNN}")
    return table(headings, "".join(lines)) + about


def _metric(scores: Iterable[Row]) -> str:
    metric, _ = headline(next((one for one in scores if "error" not in one), {}))
    return METRICS[metric]


def _cell(score: Row) -> str:
    """The score with its interval, and below it macro-F1 with its own."""
    _, value = headline(score)
    if value is None:
        return f"<td class=note>{escape('failed' if 'error' in score else 'too few labels' if score else '')}</td>"
    macro = score.get("macro_f1")
    below = "" if macro is None else f"<br>macro-F1 {percent(macro)}{_ends(score, 'macro_low', 'macro_high')}"
    return f"<td><b>{percent(value)}</b>{_ends(score, 'low', 'high')}{below}</td>"


def _ends(score: Row, low: str, high: str) -> str:
    return "" if score.get(low) is None else f" <small>({100 * score[low]:.1f} to {100 * score[high]:.1f})</small>"


def _trained(found: Row, untrained: Row) -> str:
    sides = [{one["method"]: one for one in side.get("trained", [])} for side in (found, untrained)]
    metric = _metric(one for side in sides for one in side.values())
    known = [(name, side) for name, side in zip((metric, "Untrained"), sides, strict=True) if side]
    methods = dict.fromkeys(method for _, side in known for method in side)
    lines = "".join(
        f"<tr><td>{escape(method_name(method))}</td>{''.join(_cell(side.get(method, {})) for _, side in known)}</tr>"
        for method in methods
    )
    failed = [
        note(f"{method_name(one['method'])}: {one['error']}") for s in sides for one in s.values() if "error" in one
    ]
    return table(("Trained with labels", *(name for name, _ in known)), lines) + "".join(failed) if lines else ""


def _charts(columns: dict[str, dict[tuple[str, int], Row]]) -> str:
    last = max((layer for column in columns.values() for _, layer in column), default=0)
    panels = {
        f"{method_name(method)} by layer, %": {name: _points(column, method) for name, column in columns.items()}
        for method in BY_LAYER
    }
    few = {name: _shots(column, last) for name, column in columns.items()}
    drawn = {title: lines for title, lines in (panels | {"Few labels, %": few}).items() if _says_something(lines)}
    shown = [_chart(title, lines) for title, lines in drawn.items()]
    return "".join(f"<div class=charts>{''.join(shown[at : at + 2])}</div>" for at in range(0, len(shown), 2))


def _points(column: dict[tuple[str, int], Row], method: str) -> dict[int, Row]:
    return {layer: one for (name, layer), one in column.items() if name == method and is_finite(headline(one)[1])}


def _shots(column: dict[tuple[str, int], Row], layer: int) -> dict[int, Row]:
    """By labels a class, of one layer."""
    few = {name: one for (name, where), one in column.items() if name.startswith("fewshot ") and where == layer}
    return {int(name.split()[1]): one for name, one in few.items() if is_finite(headline(one)[1])}


def _says_something(lines: dict[str, dict[int, Row]]) -> bool:
    return any(len(points) > 1 for points in lines.values())


def _chart(title: str, lines: dict[str, dict[int, Row]]) -> str:
    prefix = f"evaluation-{''.join(filter(str.isalnum, title))}"
    return chart(title, 2, partial(_draw, lines=lines, few="by layer" not in title), prefix)


def _draw(axes: Axes, lines: dict[str, dict[int, Row]], few: bool) -> None:
    """Lines in the shade of their intervals, broken for untrained encoders; labels a class on a logarithmic axis."""
    for name, points in lines.items():
        color = COLORS[list(TOKENS.values()).index(name.removeprefix(UNTRAINED))]
        places = np.array(sorted(points))
        low, high = (np.array([100 * points[x][end] for x in places]) for end in ("low", "high"))
        axes.fill_between(places, low, high, color=color, alpha=0.2, linewidth=0)
        line(axes, places, np.array([100 * headline(points[x])[1] for x in places]), color, name)
        axes.lines[-1].set_linestyle("--" if name.startswith(UNTRAINED) else "-")
    known = sorted({x for points in lines.values() for x in points})
    dress(axes, "labels a class" if few else "layer", known[-1], legend=False)
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    if few:
        axes.set_xscale("log")
        axes.set_xlim(known[0] / 1.1, known[-1] * 1.1)
        axes.minorticks_off()
    axes.set_xticks(known, [str(x) for x in known])


def _extents(found: Row) -> str:
    rows = found.get("extents", [])
    named = [(f"layer {one['layer']}, {TOKENS[one['token']]}", one) for one in rows]
    cells = ((name, f"{one['rank']:.1f} of {one['dim']}", f"{one['spread']:.2g}") for name, one in named)
    warnings = [warning(COLLAPSED.format(name)) for name, one in named if one["collapsed"]]
    about = note(
        "Rank: how many directions the features use (RankMe). Spread: how much of them differs by image, 0 to 1."
    )
    return "".join((*warnings, table(("Features", "Rank", "Spread"), "".join(map(text_row, cells))), about))
