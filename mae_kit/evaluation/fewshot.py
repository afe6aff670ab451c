"""Few-shot ridge regression on frozen features, in closed form (big_vision, evaluators/fewshot_lsr.py)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor

from mae_kit.evaluation.predictions import Labels, multi_hot

BIAS = 100.0  # so large a feature that its weight is hardly shrunk
L2 = 1024.0  # big_vision's, for features of any width


class Ridge(NamedTuple):
    """A fitted regression.

    Attributes:
        mean: Of the features it was fitted to.
        deviation: Of these.
        weights: For standardized features and the bias.
    """

    mean: Float64[Tensor, " d"]
    deviation: Float64[Tensor, " d"]
    weights: Float64[Tensor, "e c"]

    def scores(self, queries: Float[Tensor, "q d"]) -> Float64[Tensor, "q c"]:
        """Of each class; the largest is the prediction."""
        return self.standardized(queries) @ self.weights

    @property
    def spread(self) -> Float64[Tensor, " d"]:
        """What features are divided by."""
        return self.deviation + 1e-5

    def standardized(self, features: Float[Tensor, "m d"]) -> Float64[Tensor, "m e"]:
        """Features without their mean, divided by their spread, and the bias."""
        return F.pad((features.double() - self.mean) / self.spread, (0, 1), value=BIAS)


def fit_ridge(train: Float[Tensor, "m d"], labels: Labels, classes: int, l2: float = L2) -> Ridge:
    """Linear regression onto +1 for the class, or the classes of a set, and -1 for the others.

    Args:
        train: Features with known labels; their mean and deviation standardize the queries, too.
        labels: 0 .. classes - 1, or sets of these.
        classes: Number of classes.
        l2: Weight of the squared length of the weights.
    """
    deviation, mean = torch.std_mean(train.double(), dim=0, correction=0)
    ridge = Ridge(mean, deviation, torch.empty(0, classes).to(mean))
    targets = 2 * multi_hot(labels, classes).double() - 1
    return ridge._replace(weights=_solve(ridge.standardized(train), targets, l2))


def _solve(x: Float64[Tensor, "m e"], targets: Float64[Tensor, "m c"], l2: float) -> Float64[Tensor, "e c"]:
    """The same weights from the smaller of the two systems."""
    count, width = x.shape
    if count >= width:
        return torch.linalg.solve(x.T @ x + l2 * torch.eye(width).to(x), x.T @ targets)
    return x.T @ torch.linalg.solve(x @ x.T + l2 * torch.eye(count).to(x), targets)
