"""What an evaluation prints: of frozen features a row for each method and layer, and the trainings."""

from typing import Any

from rich.markup import escape
from rich.table import Table

from mae_kit.evaluation.features import CLASS, MEAN, Source
from mae_kit.evaluation.intervals import Score

Scores = dict[tuple[str, Source], Score | None]

HEADINGS = {MEAN: "mean of patches", CLASS: "class token"}
_TITLE = "Top-1 in % [its 95% interval]"


def frozen_table(scores: Scores) -> Table:
    """A row for each method and layer, a column for each token; the layer is not said where there is one alone."""
    tokens = dict.fromkeys(source.token for _, source in scores)
    layers = dict.fromkeys(source.layer for _, source in scores)
    headings = ("method", "layer") if len(layers) > 1 else ("method",)
    table = _table(_TITLE, headings, tuple(HEADINGS[token] for token in tokens))
    for method, layer in dict.fromkeys((method, source.layer) for method, source in scores):
        cells = (escape(_percent(scores[method, Source(layer, token)])) for token in tokens)
        table.add_row(method, *([str(layer)] if len(layers) > 1 else []), *cells)
    return table


def trained_table(records: list[dict[str, Any]]) -> Table:
    """A row for each training."""
    table = _table(f"Trained: {_TITLE}", ("method",), ("top-1",))
    for record in records:
        found = None if "error" in record else Score(*(record[name] for name in Score._fields))
        table.add_row(record["method"], escape(_percent(found) if found else "failed"))
    return table


def _table(title: str, texts: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    table = Table(title=escape(title), title_justify="left")
    for heading in texts:
        table.add_column(heading)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _percent(found: Score | None) -> str:
    if found is None:
        return "too few labels"
    top1, low, high = (100 * value for value in found[:3])
    return f"{top1:.1f} [{low:.1f}, {high:.1f}]"
