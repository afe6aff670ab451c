"""A quick linear probe, on features that are computed once: no augmentation, learning rate selected on a tenth.

MAE's published protocol, which augments, is `linear_probe`.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from mae_kit.data.order import permute, samples_at
from mae_kit.errors import UserError
from mae_kit.evaluation.lars import Lars
from mae_kit.evaluation.predictions import Labels, Predictions, accuracy_or_map, are_sets, concatenate, predictions
from mae_kit.evaluation.rows import Matrix
from mae_kit.training.schedule import learning_rate

RATES = (6.4, 20.0, 2.0, 64.0, 0.64)  # MAE's first: where several are equally good, it is taken
WARMUP = 1 / 9  # of the run: 10 epochs of MAE's 90
STEPS = 500  # at least: LARS moves a layer by a fraction of its length, and in 90 epochs of few images not far
FEWEST = 20
_TOGETHER = 8192  # images read at once, those of several small steps: files are opened less often
_QUERIES = 4096  # at a time: each has five times as many logits as there are classes


class Probe(nn.Module):
    """Batch normalization without affine parameters, and parallel linear layers with equal initial weights.

    Args:
        dim: Width of the features.
        classes: Number of classes.
        layers: How many.
        momentum: Of the running statistics; None for plain averages, since cached features do not change.
    """

    def __init__(self, dim: int, classes: int, layers: int, momentum: float | None = None):
        super().__init__()
        start = nn.init.trunc_normal_(torch.empty(classes, dim), std=0.01)
        self.norm = nn.BatchNorm1d(dim, eps=1e-6, momentum=momentum, affine=False)
        self.layers = nn.ModuleList(nn.Linear(dim, classes) for _ in range(layers))
        for name, parameter in self.layers.named_parameters():
            parameter.data.copy_(start if name.endswith("weight") else torch.zeros(classes))

    def forward(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "l b c"]:
        x = self.norm(features)
        return torch.stack([layer(x) for layer in self.layers])


def probe_predict(
    train: Matrix,
    labels: Labels,
    queries: Matrix,
    classes: int,
    epochs: int = 90,
    batch_size: int = 1024,
    seed: int = 0,
) -> tuple[Predictions, float]:
    """Predict with a linear layer; returns predictions (logits of multi-label data) and the learning rate.

    The paper's rate of 6.4 is for a million images. Here the best of five, by top-1 or mean average precision on a
    held-out tenth of the training images, is used for a layer trained on all of them.

    Args:
        train: Features with known labels.
        labels: 0 .. classes - 1, or sets of these.
        queries: Features to classify.
        classes: Number of classes.
        epochs: 90 in MAE; more where that is less than 500 steps.
        batch_size: Images a step, all of them where they are fewer; 16,384 in MAE.
        seed: Of weights, order and the tenth.

    Raises:
        UserError: There are fewer than 20 training images.
    """
    probe, rate = fit_probe(train, labels, classes, epochs, batch_size, seed)
    return _predict(probe, queries, torch.arange(len(queries)), labels)[0], rate


def fit_probe(
    train: Matrix, labels: Labels, classes: int, epochs: int = 90, batch_size: int = 1024, seed: int = 0
) -> tuple[Probe, float]:
    """Train a linear layer at the learning rate that is best on a held-out tenth; arguments as in `probe_predict`.

    Raises:
        UserError: There are fewer than 20 training images.
    """
    if len(train) < FEWEST:
        raise UserError(
            "data.too_few", f"{len(train)} labeled images are too few for a linear probe", f"give {FEWEST} or more"
        )
    order = torch.from_numpy(permute(np.arange(len(train)), len(train), seed))
    held, rest = order[: len(train) // 10], order[len(train) // 10 :]
    batch = min(batch_size, len(rest))
    steps = max(epochs * len(train) // batch, STEPS)
    trial = train_probe(train, labels, rest, classes, RATES, steps, batch, seed)
    found = [accuracy_or_map(one, labels[held]) for one in _predict(trial, train, held, labels)]
    rate = RATES[found.index(max(found))]
    probe = train_probe(train, labels, torch.arange(len(train)), classes, (rate,), steps, batch, seed)
    return probe, rate


@torch.no_grad()
def _predict(probe: Probe, features: Matrix, rows: Int64[Tensor, " b"], labels: Labels) -> Predictions:
    """Of each layer."""
    return concatenate((predictions(probe(features[asked]), labels) for asked in rows.split(_QUERIES)), len(rows))


def train_probe(
    features: Matrix,
    labels: Labels,
    rows: Int64[Tensor, " n"],
    classes: int,
    rates: Sequence[float],
    steps: int,
    batch: int,
    seed: int,
) -> Probe:
    """A layer for each rate, all on the same batches; in evaluation mode.

    Args:
        features: Of images.
        labels: 0 .. classes - 1; or sets of these, of which each class is asked for by itself.
        rows: Of the training images among them.
        classes: Number of classes.
        rates: Learning rates at the end of the warm-up.
        steps: Length of the training.
        batch: Images a step.
        seed: Of weights and order.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        probe = Probe(features.shape[1], classes, len(rates)).to(features.device)
    optimizer = Lars([{"params": list(layer.parameters())} for layer in probe.layers], lr=0.0)
    for step, (x, y) in enumerate(_batches(features, labels, rows, steps, batch, seed)):
        factor = learning_rate(step, peak=1, floor=0, warmup_epochs=steps * WARMUP, epochs=steps)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = factor * rate
        losses = [classification_loss(logits, y) for logits in probe(x)]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
    return probe.eval()


def classification_loss(logits: Float[Tensor, "b k"], labels: Labels) -> Float[Tensor, ""]:
    """Cross-entropy, or binary cross-entropy for multi-label data."""
    if are_sets(labels):
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits))
    return F.cross_entropy(logits, labels)


def _batches(
    features: Matrix, labels: Labels, rows: Int64[Tensor, " n"], steps: int, batch: int, seed: int
) -> Iterator[tuple[Float[Tensor, "b d"], Tensor]]:
    together = max(1, _TOGETHER // batch)
    for step in range(0, steps, together):
        places = np.arange(step * batch, min(step + together, steps) * batch)
        chosen = rows[torch.from_numpy(samples_at(places, len(rows), seed)[1])]
        yield from zip(features[chosen].split(batch), labels[chosen].split(batch), strict=True)
