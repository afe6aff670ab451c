"""Labels of either kind, one class an image or any number, and what a method that rates classes answers to them."""

from collections.abc import Iterable
from itertools import chain

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mae_kit.evaluation.metrics import average_precision, macro

Labels = Int64[Tensor, " m"] | Bool[Tensor, "m k"]
"""Class of each image, or True for each class that it has."""

Answers = Int64[Tensor, "*n q"] | Float[Tensor, "*n q k"]
"""Class of each image, or the scores of all classes, larger where a class is likelier."""


def are_sets(labels: Labels) -> bool:
    """Whether images may have any number of classes."""
    return labels.dtype == torch.bool


def multi_hot(labels: Labels, classes: int) -> Bool[Tensor, "m k"]:
    """True for each class that an image has."""
    return labels if are_sets(labels) else F.one_hot(labels, classes).bool()


def answers(scores: Float[Tensor, "*n q k"], labels: Labels) -> Answers:
    """The likeliest class where the known images have one each; the scores themselves where they have sets.

    Args:
        scores: Of each class.
        labels: That the method has learned from.
    """
    return scores if are_sets(labels) else scores.argmax(dim=-1)


def side_by_side(parts: Iterable[Answers], queries: int) -> Answers:
    """Answers to some queries at a time, [n q ...], in room for all that is taken first.

    Small results, kept between the large blocks which each part needs and frees, would keep the allocator from using
    those again.

    Args:
        parts: In order; computed as they are taken.
        queries: Their sum.
    """
    rest = iter(parts)
    first = next(rest)
    whole = first.new_empty(first.shape[0], queries, *first.shape[2:])
    end = 0
    for part in chain([first], rest):
        whole[:, end : (end := end + part.shape[1])] = part
    return whole


def goodness(found: Answers, truth: Labels) -> float:
    """The share of right answers, or the mean average precision of scores."""
    if are_sets(truth):
        return float(macro(average_precision(found.cpu().numpy(), truth.cpu().numpy())))
    return float((found == truth).double().mean())
