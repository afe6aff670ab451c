"""Few-shot ridge regression on frozen features, in closed form (big_vision, evaluators/fewshot_lsr.py)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor

BIAS = 100.0  # so large a feature that its weight is hardly shrunk
L2 = 1024.0  # big_vision's, for features of any width


def ridge_scores(
    train: Float[Tensor, "m d"],
    labels: Int64[Tensor, " m"],
    queries: Float[Tensor, "q d"],
    classes: int,
    l2: float = L2,
) -> Float64[Tensor, "q c"]:
    """Linear regression onto +1 for the class and -1 for the others; the largest score is the prediction.

    Args:
        train: Features with known labels; their mean and deviation standardise both sides.
        labels: 0 .. classes - 1.
        queries: Features to classify.
        classes: Number of classes.
        l2: Weight of the squared length of the weights.
    """
    deviation, mean = torch.std_mean(train.double(), dim=0, correction=0)
    x, asked = (F.pad((part.double() - mean) / (deviation + 1e-5), (0, 1), value=BIAS) for part in (train, queries))
    targets = 2 * F.one_hot(labels, classes).double() - 1
    return asked @ _solve(x, targets, l2)


def _solve(x: Float64[Tensor, "m e"], targets: Float64[Tensor, "m c"], l2: float) -> Float64[Tensor, "e c"]:
    """The same weights from the smaller of the two systems."""
    count, width = x.shape
    if count >= width:
        return torch.linalg.solve(x.T @ x + l2 * torch.eye(width).to(x), x.T @ targets)
    return x.T @ torch.linalg.solve(x @ x.T + l2 * torch.eye(count).to(x), targets)
