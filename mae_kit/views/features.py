"""Features as colours, and the images that are nearest by them. Pure functions."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

TAILS = 0.02  # share of the values at either end that is clipped: a few patches would take all the contrast
MANY = 16  # images whose mean shows none of them


def without_places(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """What tells an image's patch from the patch at the same place in the other images.

    The largest components of a masked autoencoder's features say where a patch is, and nothing else. Of a few images
    the mean would be the images themselves: their features are left as they are.
    """
    return tokens - tokens.mean(dim=0) if len(tokens) >= MANY else tokens


def principal_colours(tokens: Float[Tensor, "b n d"]) -> tuple[Float[Tensor, "b n 3"], list[float]]:
    """The first three principal components over all patches of all images, as red, green and blue.

    The largest coordinate of each component is made positive, so that the same features have the same colours.

    Args:
        tokens: Of patches alone, d at least 3.

    Returns:
        Colours 0..1, and the share of the variance that each component explains.
    """
    x = tokens.flatten(0, 1).double()
    x = x - x.mean(dim=0)
    variances, directions = torch.linalg.eigh(x.T @ x)
    directions = directions[:, -3:].flip(dims=[1])
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    along = x @ (directions * largest.sign())
    colours = torch.stack([_stretched(component) for component in along.unbind(dim=1)], dim=1)
    shares = variances[-3:].flip(dims=[0]) / variances.sum()
    return colours.float().unflatten(0, tokens.shape[:2]), shares.tolist()


def _stretched(values: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """To 0..1, without the tails."""
    cut = int(TAILS * (len(values) - 1))
    ordered = values.sort().values
    low, high = ordered[cut], ordered[-1 - cut]
    return ((values - low) / (high - low)).clamp(0, 1)


def nearest(
    queries: Float[Tensor, "q d"], bank: Iterable[Float[Tensor, "_ d"]], k: int
) -> tuple[Float[Tensor, "q k"], Int64[Tensor, "q k"]]:
    """The k features of a bank that are most alike each query, best first; of equal ones the earlier.

    Args:
        queries: Features.
        bank: Parts of a bank that need not fit into memory; k is at most their sum.
        k: How many.

    Returns:
        Cosines, and places in the bank.
    """
    queries = F.normalize(queries.float(), dim=1)
    best = torch.empty(len(queries), 0, device=queries.device)
    places = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    start = 0
    for part in bank:
        here = torch.arange(start, start + len(part), device=queries.device).expand(len(queries), -1)
        start += len(part)
        cosines = torch.cat([best, queries @ F.normalize(part.float(), dim=1).T], dim=1)
        best, order = cosines.sort(dim=1, descending=True, stable=True)
        best, places = best[:, :k], torch.cat([places, here], dim=1).gather(1, order[:, :k])
    return best, places
