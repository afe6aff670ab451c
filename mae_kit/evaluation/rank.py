"""Feature collapse: effective rank and relative variance."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mae_kit.evaluation.rows import Matrix

IMAGES = 25_600  # as in RankMe's experiments
NARROW, FLAT = 2.0, 1e-4
FEW = 1 / 32  # of the dimensions: fewer directions are little to tell images apart by


class FeatureStatistics(NamedTuple):
    """How much of their space features use.

    Attributes:
        dim: Their width.
        rank: RankMe, the effective rank: exp of the entropy of the singular values, 1 to dim.
        spread: Relative variance: fraction of the mean squared length that is not in the mean feature, 0 to 1; 0 = all
            images have the same feature.
        collapsed: The rank is at most 2, or the relative variance below 1e-4.
    """

    dim: int
    rank: float
    spread: float
    collapsed: bool

    @property
    def narrow(self) -> bool:
        """Whether features have not collapsed, but use few of their dimensions."""
        return not self.collapsed and self.rank < FEW * self.dim


def feature_statistics(features: Matrix) -> FeatureStatistics:
    """Compute the statistics of at most 25,600 features, evenly chosen."""
    x = features[torch.arange(0, len(features), -(-len(features) // IMAGES))].double()
    total = x.square().sum(dim=1).mean()
    spread = float((1 - x.mean(dim=0).square().sum() / total).nan_to_num().clamp(min=0))
    rank = rank_me(x)
    return FeatureStatistics(x.shape[1], rank, spread, rank <= NARROW or spread < FLAT)


def rank_me(features: Float[Tensor, "m d"]) -> float:
    """Garrido et al., "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised Representations by
    Their Rank", ICML 2023; not centered.
    """
    values = torch.linalg.svdvals(features.double())
    fractions = values / values.sum().clamp(min=1e-12) + 1e-7
    return float((-fractions * fractions.log()).sum().exp())
