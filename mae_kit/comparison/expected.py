"""What a pretraining may be expected to give: only what was measured, from recipes/expected.yaml."""

import math
from typing import Any

from mae_kit.files.recipe_file import FOLDER, parse_yaml

FILE = FOLDER / "expected.yaml"

Row = dict[str, Any]


def expectation(objective: str, seen: float, images: int, labels_per_class: int | None = None) -> str:
    """Return a sentence on what was measured with an objective for no more images, or that nothing was.

    Args:
        objective: Name of its class.
        seen: Images that the pretraining will see in all.
        images: Those in the dataset; of several measured datasets the one closest in size counts.
        labels_per_class: Of the fine-tuning; None for those that were measured.
    """
    rows = [row for row in _table() if row["objective"] == objective]
    known = [row for row in rows if labels_per_class in (None, row["labels_per_class"])]
    if not known:
        what = f"{objective} with {labels_per_class} labels per class" if rows else objective
        return (
            f"We have not measured what {what} gains; `mae-kit finetune --against-scratch` measures it on your images."
        )
    row = min(known, key=lambda row: abs(math.log(row["images"] / images)))
    least = min(row["pretrained"])
    budget = max((budget for budget in row["pretrained"] if budget <= seen), default=least)
    labels = f"{row['labels_per_class']} labels per class" if row["labels_per_class"] else "all labels"
    measured = (
        f"we measured {row['pretrained'][budget]}% top-1 against {row['scratch']}% from scratch"
        f"{_interval(row, budget)} after training on {budget:,} images, repetitions counted, with {row['recipe']} "
        f"on {row['images']:,} {row['data']}, with {labels}"
    )
    if seen >= least and _gains(row, budget):
        return f"Your images will differ; {measured}."
    enough = min((budget for budget in row["pretrained"] if _gains(row, budget)), default=None)
    more = f"; the least that gained was {enough:,}" if enough and enough != budget else ""
    return f"{seen:,.0f} images, repetitions counted, are too few to expect a gain: {measured}{more}."


def _gains(row: Row, budget: int) -> bool:
    """Whether the gain is above 0; its interval, where it was measured."""
    low, _ = row.get("gain", {}).get(budget, (row["pretrained"][budget] - row["scratch"], None))
    return low > 0


def _interval(row: Row, budget: int) -> str:
    if budget not in row.get("gain", {}):
        return ""
    low, high = row["gain"][budget]
    return f" (95% interval of the gain {low:+.1f} to {high:+.1f})"


def _table() -> list[Row]:
    return parse_yaml(FILE.read_text(encoding="utf-8"))
