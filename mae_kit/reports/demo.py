"""The result of the demo: a table of pretrained against scratch."""

from markupsafe import Markup

from mae_kit.reports.render import render
from mae_kit.training.metrics import Row


def demo(result: Row) -> Markup:
    """Show demo.json.

    Args:
        result: `{"rows": [{"labels": 10, "scratch": score, "pretrained": score, "gain": score}]}`, where a score holds
            fractions of 1: `{"mean": 0.9, "low": 0.88, "high": 0.92, "seeds": [0.89, 0.9, 0.91]}`; low and high are
            null for a single seed.
    """
    return render("demo.html", rows=result["rows"]) if result.get("rows") else Markup()
