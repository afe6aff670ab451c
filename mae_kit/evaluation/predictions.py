"""Labels, single or multi-label, and what a method predicts for them."""

from collections.abc import Iterable
from itertools import chain

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mae_kit.evaluation.metrics import average_precision, macro

Labels = Int64[Tensor, " m"] | Bool[Tensor, "m k"]
"""Class of each image, or True for each class that it has."""

Predictions = Int64[Tensor, "*n q"] | Float[Tensor, "*n q k"]
"""The predicted class of each image; of multi-label data the scores of all classes, larger where one is likelier."""


def are_sets(labels: Labels) -> bool:
    """Whether labels are multi-label."""
    return labels.dtype == torch.bool


def multi_hot(labels: Labels, classes: int) -> Bool[Tensor, "m k"]:
    """True for each class that an image has."""
    return labels if are_sets(labels) else F.one_hot(labels, classes).bool()


def predictions(scores: Float[Tensor, "*n q k"], labels: Labels) -> Predictions:
    """Reduce scores to classes, but keep them for multi-label data.

    Args:
        scores: Of each class.
        labels: That the method was fitted to; only their kind counts.
    """
    return scores if are_sets(labels) else scores.argmax(dim=-1)


def concatenate(parts: Iterable[Predictions], queries: int) -> Predictions:
    """Concatenate predictions for parts of the queries, [n q ...], in memory allocated before the second part.

    Small results between the large blocks that each part allocates and frees would fragment the memory.

    Args:
        parts: In order; computed as they are taken.
        queries: Their total number.
    """
    rest = iter(parts)
    first = next(rest)
    whole = first.new_empty(first.shape[0], queries, *first.shape[2:])
    end = 0
    for part in chain([first], rest):
        whole[:, end : (end := end + part.shape[1])] = part
    return whole


def accuracy_or_map(found: Predictions, truth: Labels) -> float:
    """Top-1 accuracy, or the mean average precision of multi-label scores, 0 to 1."""
    if are_sets(truth):
        return float(macro(average_precision(found.cpu().numpy(), truth.cpu().numpy())))
    return float((found == truth).double().mean())
