"""What pretraining was worth, in one sentence."""

import math
from collections.abc import Mapping
from typing import Any

from mae_kit.evaluation.seeds import with_interval

MORE = "pretrain for longer, on more images, or with another objective"


def verdict(gain: Mapping[str, Any], labels: str, over: str) -> str:
    """Return one sentence on the gain over training from scratch.

    Args:
        gain: `mean`, `low` and `high`, fractions of 1; an interval of None is unknown.
        labels: Those of fine-tuning, as "10 labels per class".
        over: What the interval is over, as "3 fine-tuning runs from one encoder".
    """
    points = f"{with_interval(gain, '+')} points with {labels}"
    if gain["low"] is None:
        return f"Pretraining gives {points}, in a single fine-tuning run: use --seeds 3 or more for an interval."
    interval = f"95% interval over {over}"
    if gain["high"] < 0:
        return f"Pretraining gives {points} ({interval}), less than training from scratch: {MORE}."
    if gain["low"] <= 0:
        return f"Pretraining gives {points}, which may be chance ({interval}): {MORE}."
    return f"Pretraining gives {points} ({interval})."


def knn_verdict(before: float, after: float, images: int) -> str:
    """Return one sentence on the frozen kNN score before and after pretraining.

    Args:
        before: Fraction of 1.
        after: Fraction of 1; what `may_be_chance` says so.
        images: How many were scored; 0 if that is unknown.
    """
    told = f"frozen kNN {after:.1%}{f' on {images:,} images' * bool(images)}, {before:.1%} before training"
    if after <= before:
        return f"{told}: no gain yet; {MORE}"
    return f"{told}, which may be chance: {MORE}" if may_be_chance(before, after, images) else told


def may_be_chance(before: float, after: float, images: int) -> bool:
    """Whether a score is not above an earlier one by more than two binomial standard errors of the difference.

    Args:
        before: Fraction of 1.
        after: Fraction of 1.
        images: How many were scored; 0 if that is unknown.
    """
    error = math.sqrt((before * (1 - before) + after * (1 - after)) / images) if images else 0
    return after - before <= 2 * error
