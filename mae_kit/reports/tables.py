"""Terminal tables of an evaluation."""

from typing import Any

from rich.table import Table

from mae_kit.evaluation.bootstrap import METRICS, headline
from mae_kit.reports.evaluation import TOKENS

Records = list[dict[str, Any]]


def frozen_table(records: Records) -> Table:
    """Make a row for each method and layer, a column for each token; the layer is shown if there are several."""
    scores = {(one["method"], one["layer"], one["token"]): _percent(one) for one in records}
    tokens, layers = (dict.fromkeys(one[name] for one in records) for name in ("token", "layer"))
    headings = ("method", "layer") if len(layers) > 1 else ("method",)
    table = _table(_title(records), headings, tuple(TOKENS[token] for token in tokens))
    for method, layer in dict.fromkeys((method, layer) for method, layer, _ in scores):
        cells = (scores.get((method, layer, token), "") for token in tokens)
        table.add_row(method, *([str(layer)] if len(layers) > 1 else []), *cells)
    return table


def trained_table(records: Records) -> Table:
    """Make a row for each training."""
    table = _table(f"Trained: {_title(records)}", ("method",), ("score",))
    for record in records:
        table.add_row(record["method"], "failed" if "error" in record else _percent(record))
    return table


def candidates_table(records: Records) -> Table:
    """Make a row for each way to use an encoder with few labels; the cross-validated score is what chooses."""
    table = _table(_title(records), ("method",), ("cross-validated on the labels", "validation images"))
    for record in records:
        table.add_row(record["method"], f"{100 * record['cross_validated']:.1f}", _percent(record))
    return table


def _title(records: Records) -> str:
    metric, _ = headline(next((one for one in records if "error" not in one), {}))
    return f"{METRICS[metric]} in % [its 95% interval]"


def _table(title: str, texts: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in texts:
        table.add_column(heading)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _percent(record: dict[str, Any]) -> str:
    _, value = headline(record)
    if value is None:
        return "too few labels"
    ends = [f"{100 * record[end]:.1f}" for end in ("low", "high") if record[end] is not None]
    return f"{100 * value:.1f} [{', '.join(ends)}]" if ends else f"{100 * value:.1f}"
