"""Weighted nearest neighbours on frozen features (Wu et al., "Unsupervised Feature Learning via Non-Parametric
Instance Discrimination", CVPR 2018).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from mae_kit.evaluation.rows import Matrix

BANK, QUERIES = 8192, 1024  # rows at a time: their cosines take 32 MiB


def knn_predict(
    bank: Matrix,
    labels: Int64[Tensor, " m"],
    queries: Matrix,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> Int64[Tensor, " q"]:
    """The class with the largest sum of exp(cosine / temperature) over each query's k nearest in the bank.

    Args:
        bank: Features with known labels.
        labels: Of the bank, 0 .. classes - 1.
        queries: Features to classify.
        classes: Number of classes.
        k: Neighbours, at most m.
        temperature: .07 in the literature.
    """
    cosines, places = nearest(bank, queries, min(k, len(bank)))
    weights = ((cosines - cosines[:, :1]) / temperature).exp()  # at most 1, where exp(1 / temperature) may overflow
    parts = zip(weights.split(QUERIES), labels[places].split(QUERIES), strict=True)
    return torch.cat([_elected(votes, names, classes) for votes, names in parts])


def nearest(bank: Matrix, queries: Matrix, k: int) -> tuple[Float[Tensor, "q k"], Int64[Tensor, "q k"]]:
    """Cosines of each query's k nearest, the largest first, and their places in the bank, which is read once.

    Args:
        bank: Features.
        queries: Features; read once for every 8192 of the bank.
        k: Neighbours, at most those that the bank has.
    """
    cosines = torch.full((len(queries), k), -torch.inf, device=queries.device)
    places = torch.zeros_like(cosines, dtype=torch.int64)
    for block, rows in enumerate(bank.split(BANK)):
        known = F.normalize(rows.float(), dim=1)
        for number, asked in enumerate(queries.split(QUERIES)):
            part = slice(number * QUERIES, (number + 1) * QUERIES)
            near, where = (F.normalize(asked.float(), dim=1) @ known.T).topk(min(k, len(known)), dim=1)
            cosines[part], order = torch.cat([cosines[part], near], dim=1).topk(k, dim=1)
            places[part] = torch.cat([places[part], where + block * BANK], dim=1).gather(1, order)
    return cosines, places


def _elected(weights: Float[Tensor, "q k"], labels: Int64[Tensor, "q k"], classes: int) -> Int64[Tensor, " q"]:
    votes = torch.zeros(len(weights), classes, device=weights.device)
    return votes.scatter_add_(1, labels, weights).argmax(dim=1)
