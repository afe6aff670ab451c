"""What attention maps say: how far a head looks, where, and what all layers together see. Pure functions.

A map is [t t], rows of queries that sum to 1; the prefix tokens come first. l layers, a heads.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def attention_distance(
    maps: Float[Tensor, "b l a t t"], grid: tuple[int, int], patch_size: tuple[int, int]
) -> Float[Tensor, "l a"]:
    """How far a head looks: the mean distance in pixels between the centers of a patch and of those it attends to.

    Weighted by the attention, averaged over the patches that look and over the images (Dosovitskiy et al., "An Image is
    Worth 16x16 Words", figure 7). What goes to prefix tokens, which are nowhere, is left out of the weights.
    """
    n = grid[0] * grid[1]
    weights = maps[..., -n:, -n:].float()
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return (weights * patch_distances(grid, patch_size).to(maps.device)).sum(dim=-1).mean(dim=(0, 3))


def patch_distances(grid: tuple[int, int], patch_size: tuple[int, int]) -> Float[Tensor, "n n"]:
    """Pixels between the centers of any two patches."""
    rows, columns = (torch.arange(count) * float(size) for count, size in zip(grid, patch_size, strict=True))
    centers = torch.cartesian_prod(rows, columns)
    return torch.cdist(centers, centers, compute_mode="donot_use_mm_for_euclid_dist")


def rollout(maps: Float[Tensor, "b l a t t"]) -> Float[Tensor, "b t t"]:
    """How much of each input token arrives in each output token (Abnar and Zuidema, "Quantifying Attention Flow in
    Transformers", ACL 2020): heads averaged, the residual connection counted as a half, layers multiplied.
    """
    mixed = (maps.float().mean(dim=2) + torch.eye(maps.shape[-1], device=maps.device)) / 2
    arrived = mixed[:, 0]
    for layer in mixed[:, 1:].unbind(dim=1):
        arrived = layer @ arrived
    return arrived


def gaze(maps: Float[Tensor, "*m t t"], grid: tuple[int, int], query: int | None) -> Float[Tensor, "*m rows columns"]:
    """Which patches a token looks at: patch number `query`, row by row, or, for None, the class token."""
    n = grid[0] * grid[1]
    token = 0 if query is None else maps.shape[-1] - n + query
    return maps[..., token, -n:].unflatten(-1, grid)
