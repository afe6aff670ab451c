"""What the demo found: the table of pretrained against scratch."""

from html import escape

from mae_kit.reports.html import note, section, table
from mae_kit.training.metrics import Row


def comparison(demo: Row) -> str:
    """Of `{"rows": [{"labels": 10, "scratch": score, "pretrained": score, "gain": score}]}`, a score being shares of 1:
    `{"mean": 0.9, "low": 0.88, "high": 0.92, "seeds": [0.89, 0.9, 0.91]}`; low and high are null for a single seed.
    """
    rows = "".join(_row(row) for row in demo.get("rows", []))
    names = ("Labels a class", "From scratch", "Pretrained", "Gain, points")
    about = note("Top-1: mean, 95% interval, and the value of each seed; the gain is taken seed by seed.")
    return section("Pretrained against scratch", table(names, rows), about) if rows else ""


def _row(row: Row) -> str:
    scores = (score_cell(row["scratch"], ".1f", "%"), score_cell(row["pretrained"], ".1f", "%"))
    gain = score_cell(row["gain"], "+.1f")
    return f"<tr><td><b>{escape(str(row['labels']))}</b></td>{''.join(scores)}{gain}</tr>"


def score_cell(score: Row, style: str, unit: str = "") -> str:
    """Mean, interval and the value of each seed."""
    mean, *values = (f"{100 * value:{style}}{unit}" for value in (score["mean"], *score["seeds"]))
    known = score["low"] is not None
    interval = f" ({100 * score['low']:{style}} to {100 * score['high']:{style}}{unit})" if known else ""
    return f"<td><b>{mean}</b>{interval}<br><small>{', '.join(values)}</small></td>"
