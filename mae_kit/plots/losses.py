"""The loss of each patch."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Bool, Float, Num
from matplotlib.figure import Figure
from torch import Tensor

from mae_kit.plots.figures import show_photo, tile_size, tiles


def patch_losses(objective: Any, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Compute the loss of each hidden patch of an objective that `reconstructs`; NaN for visible patches."""
    prediction = objective.compare(images, hidden).prediction
    errors = (prediction.float() - objective.target(images)).square().mean(dim=-1)
    return torch.where(hidden, errors, torch.nan)


def loss_map(
    objective: Any, images: Float[Tensor, "b c h w"], masks: Iterable[Bool[Tensor, "b n"]]
) -> Float[Tensor, "b n"]:
    """Average the loss of each patch over the masks that hide it; NaN for a patch that is never hidden."""
    return torch.stack([patch_losses(objective, images, hidden) for hidden in masks]).nanmean(dim=0)


def losses_figure(images: Num[Tensor, "b c h w"], losses: Float[Tensor, "b y x"]) -> Figure:
    """Draw input | loss of each patch, a row for each image, all on one scale."""
    height, width = tile_size((images.shape[2], images.shape[3]))
    figure = Figure(figsize=(2 * width + 0.9, len(images) * height + 0.3), layout="constrained")
    axes = tiles(figure, len(images), ["input", "loss"])
    high = float(losses.nan_to_num().max())
    corners = (0, images.shape[3], images.shape[2], 0)
    for (left, right), image, loss in zip(axes, images, losses, strict=True):
        show_photo(left, image)
        drawn = right.imshow(loss.numpy(), cmap="inferno", vmin=0, vmax=high, extent=corners, interpolation="nearest")
    figure.colorbar(drawn, ax=axes[:, 1], aspect=12 * len(images), fraction=0.08)
    return figure
