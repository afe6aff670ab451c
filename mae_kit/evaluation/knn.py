"""Weighted nearest neighbours on frozen features (Wu et al., "Unsupervised Feature Learning via Non-Parametric
Instance Discrimination", CVPR 2018).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor


def knn_predict(
    bank: Float[Tensor, "m d"],
    labels: Int64[Tensor, " m"],
    queries: Float[Tensor, "q d"],
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
    similarity = F.normalize(queries.float(), dim=1) @ F.normalize(bank.float(), dim=1).T
    nearest, where = similarity.topk(min(k, len(bank)), dim=1)
    votes = torch.zeros(len(queries), classes, device=queries.device)
    weights = ((nearest - nearest[:, :1]) / temperature).exp()  # at most 1, where exp(1 / temperature) may overflow
    votes.scatter_add_(1, labels[where], weights)
    return votes.argmax(dim=1)
