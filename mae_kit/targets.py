"""What a masked patch is compared with."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from mae_kit.patches import grid_of, patchify, unpatchify

EPSILON = 1e-6  # inside the square root, as in models_mae.py
ORIENTATIONS = 9  # of a histogram of oriented gradients, over half a turn


def patch_statistics(patches: Float[Tensor, "b n q"]) -> tuple[Float[Tensor, "b n 1"], Float[Tensor, "b n 1"]]:
    """Mean and standard deviation (unbiased) over all values of each patch, the channels together."""
    mean = patches.mean(dim=-1, keepdim=True)
    return mean, (patches.var(dim=-1, keepdim=True) + EPSILON).sqrt()


def normalize_patches(patches: Float[Tensor, "b n q"]) -> Float[Tensor, "b n q"]:
    """MAE's target: each patch with zero mean and unit variance (section 3, "reconstruction target")."""
    mean, std = patch_statistics(patches)
    return (patches - mean) / std


def unnormalize_patches(prediction: Float[Tensor, "b n q"], true: Float[Tensor, "b n q"]) -> Float[Tensor, "b n q"]:
    """A prediction of normalized patches in pixels again, with the statistics of the true patches."""
    mean, std = patch_statistics(true)
    return prediction * std + mean


def patch_targets(
    images: Float[Tensor, "b c h w"], patch_size: tuple[int, int], normalize: bool
) -> Float[Tensor, "b n q"]:
    """What MAE's prediction of every patch is compared with: its pixels, normalized or not. fp32."""
    patches = patchify(images, patch_size).float()
    return normalize_patches(patches) if normalize else patches


def predicted_images(
    prediction: Float[Tensor, "b n q"], images: Float[Tensor, "b c h w"], patch_size: tuple[int, int], normalized: bool
) -> Float[Tensor, "b c h w"]:
    """A prediction of `patch_targets` as images, with the statistics of the true patches where it is normalized."""
    pixels = prediction.float()
    if normalized:
        pixels = unnormalize_patches(pixels, patchify(images, patch_size).float())
    return unpatchify(pixels, patch_size, grid_of((images.shape[2], images.shape[3]), patch_size))


def hidden_mean(values: Float[Tensor, "b n"], hidden: torch.Tensor) -> Float[Tensor, ""]:
    """Mean over the hidden patches of the whole batch, 0 where there are none; visible ones contribute nothing."""
    return (values * hidden).sum() / hidden.sum().clamp(min=1)


def hidden_mean_squared_error(
    prediction: Float[Tensor, "b n q"], target: Float[Tensor, "b n q"], hidden: torch.Tensor
) -> Float[Tensor, ""]:
    """Mean over pixels, then over the hidden patches of the whole batch. fp32."""
    return hidden_mean((prediction.float() - target.float()).square().mean(dim=-1), hidden)


def hidden_mean_absolute_error(
    prediction: Float[Tensor, "b n q"], target: Float[Tensor, "b n q"], hidden: torch.Tensor
) -> Float[Tensor, ""]:
    """As `hidden_mean_squared_error`, but l1 (simmim.py: over hidden pixels and channels). fp32."""
    return hidden_mean((prediction.float() - target.float()).abs().mean(dim=-1), hidden)


def color_classes(colors: Float[Tensor, "b n m c"]) -> Int64[Tensor, "b n m"]:
    """Colors in 0..1 as classes, 3 bits a channel, the first channel the highest (ViT paper, B.1.2)."""
    levels = (colors * 8).floor().clamp(0, 7).long()
    return (levels * _places(colors.shape[-1], levels)).sum(dim=-1)


def colors_of(classes: Int64[Tensor, "b n m"], channels: int) -> Float[Tensor, "b n m c"]:
    """The color in the middle of each class, 0..1."""
    levels = classes[..., None] // _places(channels, classes) % 8
    return (levels + 0.5) / 8


def _places(channels: int, like: Tensor) -> Int64[Tensor, " c"]:
    return 8 ** torch.arange(channels - 1, -1, -1, device=like.device)


def gradients(images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
    """Sobel's, down and to the right; the border is reflected (MaskFeat, SlowFast's operators.py)."""
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    along = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    across = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    return across[:, :, 2:] - across[:, :, :-2], along[..., 2:] - along[..., :-2]


def orientation_histograms(
    down: Float[Tensor, "b c h w"], right: Float[Tensor, "b c h w"], cell: int
) -> Float[Tensor, "b c y x k"]:
    """How much of the gradient of each cell has each of 9 orientations: histograms of unit length (Dalal & Triggs).

    Orientations are unsigned and counted from that of a gradient to the right; a pixel's magnitude goes whole to one of
    them. A cell without any gradient is zero.

    Args:
        down: Gradient along the rows.
        right: Gradient along the columns.
        cell: Pixels a side of a cell; divides the image.
    """
    which = (torch.atan2(down, right) / math.pi * ORIENTATIONS).floor().long() % ORIENTATIONS
    size = torch.hypot(down, right)
    counts = [F.avg_pool2d(size * (which == k), cell) for k in range(ORIENTATIONS)]
    return F.normalize(torch.stack(counts, dim=-1), dim=-1)
