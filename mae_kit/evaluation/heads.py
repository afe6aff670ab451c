"""Linear heads fitted to frozen features: closed-form ridge regression and the quick probe, as weights of a layer."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor, nn

from mae_kit.evaluation.fewshot import BIAS, Ridge, fit_ridge
from mae_kit.evaluation.predictions import Labels, multi_hot
from mae_kit.evaluation.probe import Probe, classification_loss

PENALTIES = tuple(10.0**power for power in range(-1, 6))
SCALES = tuple(2.0**power for power in range(-1, 6))


class Head(NamedTuple):
    """A linear layer on features.

    Attributes:
        weight: Of the features as they are.
        bias: Of each class.
    """

    weight: Float[Tensor, "k d"]
    bias: Float[Tensor, " k"]

    def logits(self, features: Float[Tensor, "m d"]) -> Float[Tensor, "m k"]:
        return F.linear(features.to(self.weight), *self)


def ridge_head(features: Float[Tensor, "m d"], labels: Labels, classes: int) -> Head:
    """Ridge regression whose penalty and scale are chosen by leave-one-out cross-validation.

    The penalty has the least squared error; the scores are then multiplied so that, as logits, they have the least
    cross-entropy: a fine-tuning can begin with them.

    Args:
        features: Of the labeled images.
        labels: 0 .. classes - 1, or sets of these.
        classes: Number of classes.
    """
    targets = 2 * multi_hot(labels, classes).double() - 1
    held_out = {l2: _leave_one_out(features, labels, targets, l2) for l2 in PENALTIES}
    best = min(PENALTIES, key=lambda l2: float((held_out[l2] - targets).square().mean()))
    scale = min(SCALES, key=lambda scale: float(classification_loss(scale * held_out[best], labels)))
    return _folded(fit_ridge(features, labels, classes, best), scale)


def probe_head(probe: Probe) -> Head:
    """The first layer of a trained probe, with its batch normalization folded in."""
    norm, layer = probe.norm, probe.layers[0]
    assert isinstance(layer, nn.Linear)
    assert norm.running_mean is not None and norm.running_var is not None
    weight = layer.weight / (norm.running_var + norm.eps).sqrt()
    return Head(weight.detach(), (layer.bias - weight @ norm.running_mean).detach())


def _leave_one_out(
    features: Float[Tensor, "m d"], labels: Labels, targets: Float64[Tensor, "m k"], l2: float
) -> Float64[Tensor, "m k"]:
    """Scores of each image by the regression on all others, from one regression on all (Allen's PRESS, 1974)."""
    ridge = fit_ridge(features, labels, targets.shape[1], l2)
    x = ridge.standardized(features)
    gram = x @ x.T
    smooth = torch.linalg.solve(gram + l2 * torch.eye(len(x)).to(x), gram)
    leverage = smooth.diagonal()[:, None]
    return (smooth @ targets - leverage * targets) / (1 - leverage)


def _folded(ridge: Ridge, scale: float) -> Head:
    *weights, bias = scale * ridge.weights
    weight = torch.stack(weights, dim=1) / ridge.spread
    return Head(weight.float(), (BIAS * bias - weight @ ridge.mean).float())
