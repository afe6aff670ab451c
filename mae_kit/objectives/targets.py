"""Targets: what the prediction of a hidden patch is compared with, and the losses."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from mae_kit.encoders.patches import grid_of, patchify, unpatchify

EPSILON = 1e-6  # inside the square root, as in models_mae.py
ORIENTATIONS = 9  # of a histogram of oriented gradients, over half a turn


def patch_statistics(patches: Float[Tensor, "b n q"]) -> tuple[Float[Tensor, "b n 1"], Float[Tensor, "b n 1"]]:
    """Compute mean and standard deviation (unbiased) over all values of each patch, channels included."""
    mean = patches.mean(dim=-1, keepdim=True)
    return mean, (patches.var(dim=-1, keepdim=True) + EPSILON).sqrt()


def normalize_patches(patches: Float[Tensor, "b n q"]) -> Float[Tensor, "b n q"]:
    """Normalize each patch to zero mean and unit variance (MAE, section 3, "reconstruction target")."""
    mean, std = patch_statistics(patches)
    return (patches - mean) / std


def unnormalize_patches(prediction: Float[Tensor, "b n q"], true: Float[Tensor, "b n q"]) -> Float[Tensor, "b n q"]:
    """Undo `normalize_patches` on a prediction, with the statistics of the true patches."""
    mean, std = patch_statistics(true)
    return prediction * std + mean


def patch_targets(
    images: Float[Tensor, "b c h w"], patch_size: tuple[int, int], normalize: bool
) -> Float[Tensor, "b n q"]:
    """Compute MAE's target: the pixels of each patch, normalized or not, in fp32."""
    patches = patchify(images, patch_size).float()
    return normalize_patches(patches) if normalize else patches


def predicted_images(
    prediction: Float[Tensor, "b n q"], images: Float[Tensor, "b c h w"], patch_size: tuple[int, int], normalized: bool
) -> Float[Tensor, "b c h w"]:
    """Turn a prediction of `patch_targets` into images, with the statistics of the true patches if normalized."""
    pixels = prediction.float()
    if normalized:
        pixels = unnormalize_patches(pixels, patchify(images, patch_size).float())
    return unpatchify(pixels, patch_size, grid_of((images.shape[2], images.shape[3]), patch_size))


def hidden_mean(values: Float[Tensor, "b n"], hidden: torch.Tensor) -> Float[Tensor, ""]:
    """Average over the hidden patches of the whole batch; 0 if there are none."""
    return (values * hidden).sum() / hidden.sum().clamp(min=1)


def hidden_mean_squared_error(
    prediction: Float[Tensor, "b n q"], target: Float[Tensor, "b n q"], hidden: torch.Tensor
) -> Float[Tensor, ""]:
    """Average squared errors over pixels, then over the hidden patches of the whole batch, in fp32."""
    return hidden_mean((prediction.float() - target.float()).square().mean(dim=-1), hidden)


def hidden_mean_absolute_error(
    prediction: Float[Tensor, "b n q"], target: Float[Tensor, "b n q"], hidden: torch.Tensor
) -> Float[Tensor, ""]:
    """Average absolute errors as `hidden_mean_squared_error` does squared ones (simmim.py), in fp32."""
    return hidden_mean((prediction.float() - target.float()).abs().mean(dim=-1), hidden)


def color_classes(colors: Float[Tensor, "b n m c"]) -> Int64[Tensor, "b n m"]:
    """Quantize colors in 0..1 to classes, 3 bits a channel, the first channel highest (ViT paper, B.1.2)."""
    levels = (colors * 8).floor().clamp(0, 7).long()
    return (levels * _places(colors.shape[-1], levels)).sum(dim=-1)


def colors_of(classes: Int64[Tensor, "b n m"], channels: int) -> Float[Tensor, "b n m c"]:
    """Give the color at the center of each class, in 0..1."""
    levels = classes[..., None] // _places(channels, classes) % 8
    return (levels + 0.5) / 8


def _places(channels: int, like: Tensor) -> Int64[Tensor, " c"]:
    return 8 ** torch.arange(channels - 1, -1, -1, device=like.device)


def gradients(images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
    """Compute Sobel gradients, down and to the right, with reflected borders (SlowFast, operators.py)."""
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    along = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    across = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    return across[:, :, 2:] - across[:, :, :-2], along[..., 2:] - along[..., :-2]


def orientation_histograms(
    down: Float[Tensor, "b c h w"], right: Float[Tensor, "b c h w"], cell: int
) -> Float[Tensor, "b c y x k"]:
    """Compute histograms of oriented gradients: 9 orientations for each cell, of unit length (Dalal & Triggs, 2005).

    Bins are those of MaskFeat's code (SlowFast, operators.py): unsigned angles `atan2(right, down)`, so that the first
    bin starts at a gradient straight down; the magnitude of a pixel goes to one bin. A cell without gradients is zero.

    Args:
        down: Gradient along the rows.
        right: Gradient along the columns.
        cell: Side of a cell in pixels; divides the image.
    """
    which = (torch.atan2(right, down) / math.pi * ORIENTATIONS).floor().long() % ORIENTATIONS
    size = torch.hypot(down, right)
    counts = [F.avg_pool2d(size * (which == k), cell) for k in range(ORIENTATIONS)]
    return F.normalize(torch.stack(counts, dim=-1), dim=-1)
