"""The ways to ask frozen features for a class, each scored on the unseen images."""

import torch
from jaxtyping import Int64
from torch import Tensor

from mae_kit.data.labels import draw_per_class, smallest_class
from mae_kit.evaluation.fewshot import fit_ridge
from mae_kit.evaluation.intervals import Score, score_classes
from mae_kit.evaluation.knn import knn_predict
from mae_kit.evaluation.probe import probe_predict
from mae_kit.evaluation.sides import Sides

_QUERIES = 4096  # at a time


def score_knn(sides: Sides, k: int, temperature: float) -> Score:
    """Of the weighted vote of the k nearest."""
    (bank, labels), (queries, truth), classes = sides
    return _score(knn_predict(bank, labels, queries, classes, k, temperature)[None], truth)


def score_fewshot(sides: Sides, shots: int, seeds: int) -> Score | None:
    """Of ridge regression on `shots` images of each class, drawn anew for each seed; None where a class has fewer."""
    (known, labels), (queries, truth), classes = sides
    names = labels.cpu().numpy()
    if smallest_class(names) < shots:
        return None
    drawn = [torch.from_numpy(draw_per_class(names, shots, seed)) for seed in range(seeds)]
    ridges = [fit_ridge(known[few], labels[few], classes) for few in drawn]
    predicted = truth.new_empty(seeds, len(queries))
    for part, asked in zip(predicted.split(_QUERIES, dim=1), queries.split(_QUERIES), strict=True):
        for found, ridge in zip(part, ridges, strict=True):
            found.copy_(ridge.scores(asked).argmax(dim=1))
    return _score(predicted, truth)


def score_probe(sides: Sides, epochs: int, batch_size: int, seed: int) -> Score:
    """Of a linear layer trained on all that is known."""
    (known, labels), (queries, truth), classes = sides
    predicted, _ = probe_predict(known, labels, queries, classes, epochs, batch_size, seed)
    return _score(predicted[None], truth)


def _score(predicted: Int64[Tensor, "s q"], truth: Int64[Tensor, " q"]) -> Score:
    return score_classes(predicted.cpu().numpy(), truth.cpu().numpy())
