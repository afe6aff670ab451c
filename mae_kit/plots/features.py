"""Features as colors. Pure functions."""

import torch
from jaxtyping import Float
from torch import Tensor

TAILS = 0.02  # share of the values at either end that is clipped: a few patches would take all the contrast
MANY = 16  # images whose mean shows none of them


def without_places(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """What tells an image's patch from the patch at the same place in the other images.

    The largest components of a masked autoencoder's features say where a patch is, and nothing else. Of a few images
    the mean would be the images themselves: their features are left as they are.
    """
    return tokens - tokens.mean(dim=0) if len(tokens) >= MANY else tokens


def principal_colors(tokens: Float[Tensor, "b n d"]) -> tuple[Float[Tensor, "b n 3"], list[float]]:
    """The first three principal components over all patches of all images, as red, green and blue.

    The largest coordinate of each component is made positive, so that the same features have the same colors.

    Args:
        tokens: Of patches alone, d at least 3.

    Returns:
        Colors 0..1, and the share of the variance that each component explains.
    """
    x = tokens.flatten(0, 1).double()
    x = x - x.mean(dim=0)
    variances, directions = torch.linalg.eigh(x.T @ x)
    directions = directions[:, -3:].flip(dims=[1])
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    along = x @ (directions * largest.sign())
    colors = torch.stack([_stretched(component) for component in along.unbind(dim=1)], dim=1)
    shares = variances[-3:].flip(dims=[0]) / variances.sum()
    return colors.float().unflatten(0, tokens.shape[:2]), shares.tolist()


def _stretched(values: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """To 0..1, without the tails."""
    cut = int(TAILS * (len(values) - 1))
    ordered = values.sort().values
    low, high = ordered[cut], ordered[-1 - cut]
    return ((values - low) / (high - low)).clamp(0, 1)
