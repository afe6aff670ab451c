"""Reconstructions at several mask ratios."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Num, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from mae_kit.data.transforms.augment import Normalize
from mae_kit.encoders.patches import unpatchify
from mae_kit.objectives import Objective
from mae_kit.objectives.masking import random_mask, visible_count
from mae_kit.plots.figures import show_photo, tile_size, tiles

RATIOS = (0.1, 0.25, 0.5, 0.75, 0.85, 0.9, 0.95)
GRAY = 128


class AtRatio(NamedTuple):
    """Images with a fraction of their patches hidden.

    Attributes:
        ratio: The fraction asked for.
        loss: Of the hidden patches.
        hidden: True = hidden.
        seen: With hidden patches gray.
        pasted: With hidden patches as predicted.
    """

    ratio: float
    loss: float
    hidden: Bool[Tensor, "b n"]
    seen: UInt8[Tensor, "b c h w"]
    pasted: UInt8[Tensor, "b c h w"]


def over_ratios(
    objective: Objective, normalize: Normalize, images: Num[Tensor, "b c h w"], seeds: Int64[Tensor, " b"]
) -> list[AtRatio]:
    """Reconstruct images with random patches hidden; what is hidden at one ratio stays hidden at the next."""
    encoder = objective.encoder
    n = encoder.grid[0] * encoder.grid[1]
    ratios = [ratio for ratio in RATIOS if 0 < visible_count(n, ratio) < n]
    masks = (random_mask(seeds, encoder.grid, ratio) for ratio in ratios)
    return [_at_ratio(objective, normalize, images, ratio, hidden) for ratio, hidden in zip(ratios, masks, strict=True)]


def _at_ratio(
    objective: Objective,
    normalize: Normalize,
    images: Num[Tensor, "b c h w"],
    ratio: float,
    hidden: Bool[Tensor, "b n"],
) -> AtRatio:
    normalized = normalize(images)
    outcome = objective.compare(normalized, hidden)
    predicted = _eight_bits(normalize.inverse(objective.pixels(outcome.prediction, normalized)))
    encoder = objective.encoder
    size = len(images), hidden.shape[1], encoder.patch_size[0] * encoder.patch_size[1]
    patches = torch.ones(size, device=images.device)
    at = unpatchify(patches * hidden[:, :, None], encoder.patch_size, encoder.grid).bool()
    seen, pasted = torch.where(at, GRAY, images).to(torch.uint8), torch.where(at, predicted, images).to(torch.uint8)
    return AtRatio(ratio, float(outcome.loss), hidden, seen.cpu(), pasted.cpu())


def _eight_bits(images: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h w"]:
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def ratios_figure(images: Num[Tensor, "b c h w"], found: list[AtRatio]) -> Figure:
    """Draw input | each ratio, two rows for each image: what is seen, and the prediction combined with it."""
    height, width = tile_size((images.shape[2], images.shape[3]))
    figure = Figure(figsize=((1 + len(found)) * width, 2 * len(images) * height + 0.3), layout="constrained")
    axes = tiles(figure, 2 * len(images), ["input", *(f"{at.ratio:.0%} hidden" for at in found)])
    for i, image in enumerate(images):
        above, below = axes[2 * i : 2 * i + 2]
        show_photo(above[0], image)
        for column, at in enumerate(found, start=1):
            show_photo(above[column], at.seen[i])
            show_photo(below[column], at.pasted[i])
    return figure
