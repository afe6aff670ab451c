"""Whether features have collapsed: how many directions they use, and how much images differ."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mae_kit.evaluation.rows import Matrix

IMAGES = 25_600  # that RankMe was measured on
NARROW, ALIKE = 2.0, 1e-4


class Extent(NamedTuple):
    """How much room features take.

    Attributes:
        dim: Their width.
        rank: RankMe: exp of the entropy of the singular values, 1 to dim.
        spread: Share of the mean squared length that is not in the mean feature, 0 to 1; 0 = all images alike.
        collapsed: The rank is 2 or less, or the spread below 1e-4: hardly anything can be told from these features.
    """

    dim: int
    rank: float
    spread: float
    collapsed: bool


def extent(features: Matrix) -> Extent:
    """Of at most 25,600 features, evenly chosen."""
    x = features[torch.arange(0, len(features), -(-len(features) // IMAGES))].double()
    total = x.square().sum(dim=1).mean()
    spread = float((1 - x.mean(dim=0).square().sum() / total).nan_to_num().clamp(min=0))
    rank = rank_me(x)
    return Extent(x.shape[1], rank, spread, rank <= NARROW or spread < ALIKE)


def rank_me(features: Float[Tensor, "m d"]) -> float:
    """Garrido et al., "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised Representations by
    Their Rank", ICML 2023; not centered.
    """
    values = torch.linalg.svdvals(features.double())
    shares = values / values.sum().clamp(min=1e-12) + 1e-7
    return float((-shares * shares.log()).sum().exp())
