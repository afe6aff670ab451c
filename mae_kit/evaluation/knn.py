"""Weighted nearest neighbors on frozen features (Wu et al., "Unsupervised Feature Learning via Non-Parametric
Instance Discrimination", CVPR 2018).
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from mae_kit.evaluation.predictions import Labels, Predictions, predictions
from mae_kit.evaluation.rows import Matrix

BANK, QUERIES = 8192, 1024  # rows at a time: their cosines take 32 MiB


def knn_predict(
    bank: Matrix, labels: Labels, queries: Matrix, classes: int, k: int = 20, temperature: float = 0.07
) -> Predictions:
    """Predict the class with the largest sum of exp(cosine / temperature) over each query's k nearest in the bank.

    Of multi-label data, score each class by the fraction of that sum, in [0, 1], from neighbors that have it.

    Args:
        bank: Features with known labels.
        labels: Of the bank, 0 .. classes - 1, or sets of these.
        queries: Features to classify.
        classes: Number of classes.
        k: Neighbors, or as many as the bank has.
        temperature: .07 in the literature.
    """
    cosines, places = nearest(bank.split(BANK), queries, min(k, len(bank)))
    weights = ((cosines - cosines[:, :1]) / temperature).exp()  # at most 1, where exp(1 / temperature) may overflow
    parts = zip(weights.split(QUERIES), places.split(QUERIES), strict=True)
    return torch.cat([predictions(_fractions(votes, labels[near], classes), labels) for votes, near in parts])


def nearest(
    bank: Iterable[Float[Tensor, "_ _"]], queries: Matrix, k: int
) -> tuple[Float[Tensor, "q n"], Int64[Tensor, "q n"]]:
    """Cosines of each query's k nearest, the largest first, and their places in the bank; n is less for a smaller bank.

    Which of equally near ones come, and in what order, is left open.

    Args:
        bank: Features, a part in memory at a time; read once.
        queries: Features; read once for every part of the bank.
        k: Neighbors.
    """
    cosines = torch.full((len(queries), k), -torch.inf, device=queries.device)
    places, start = torch.zeros_like(cosines, dtype=torch.int64), 0
    for rows in bank:
        known = F.normalize(rows.float(), dim=1)
        for number, asked in enumerate(queries.split(QUERIES)):
            part = slice(number * QUERIES, (number + 1) * QUERIES)
            near, where = (F.normalize(asked.float(), dim=1) @ known.T).topk(min(k, len(known)), dim=1)
            cosines[part], order = torch.cat([cosines[part], near], dim=1).topk(k, dim=1)
            places[part] = torch.cat([places[part], where + start], dim=1).gather(1, order)
        start += len(rows)
    return cosines[:, :start], places[:, :start]


def _fractions(weights: Float[Tensor, "q n"], labels: Tensor, classes: int) -> Float[Tensor, "q k"]:
    """Of the votes, by class; labels are those of the n neighbors, [q n] or [q n k]."""
    fractions = weights / weights.sum(dim=1, keepdim=True)
    if labels.ndim == 3:
        return torch.einsum("qn,qnk->qk", fractions, labels.to(fractions))
    return torch.zeros(len(fractions), classes, device=fractions.device).scatter_add_(1, labels, fractions)
