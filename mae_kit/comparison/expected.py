"""What a pretraining may be expected to give: only what was measured, from recipes/expected.yaml."""

from typing import Any

from mae_kit.files.recipe_file import FOLDER, parse_yaml

FILE = FOLDER / "expected.yaml"


def expectation(objective: str, images: float, labels_per_class: int | None = None) -> str:
    """Return a sentence on what was measured with an objective for no more images, or that nothing was.

    Args:
        objective: Name of its class.
        images: Images that the pretraining will see in all.
        labels_per_class: Of the fine-tuning; None for those that were measured.
    """
    rows = [row for row in _table() if row["objective"] == objective]
    known = [row for row in rows if labels_per_class in (None, row["labels_per_class"])]
    if not known:
        what = f"{objective} with {labels_per_class} labels per class" if rows else objective
        return f"What to expect is not known: {what} was not measured; finetune --against-scratch shows it."
    row, scratch = known[0], known[0]["scratch"]
    least = min(row["pretrained"])
    budget = max((budget for budget in row["pretrained"] if budget <= images), default=least)
    score = row["pretrained"][budget]
    measured = (
        f"measured were {score}% against {scratch}% from scratch after {budget:,} images with {row['recipe']}, "
        f"on 9,469 photos and {row['labels_per_class']} labels per class"
    )
    if images >= least and score > scratch:
        return f"Other images will differ; {measured}."
    enough = min((budget for budget, score in row["pretrained"].items() if score > scratch), default=None)
    more = f", a gain after {enough:,}" if enough else ""
    return f"{images:,.0f} images are too few to expect a gain: {measured}{more}."


def _table() -> list[dict[str, Any]]:
    return parse_yaml(FILE.read_text(encoding="utf-8"))
