"""What a masked patch is compared with."""

import torch
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-6  # inside the square root, as in models_mae.py


def patch_statistics(patches: Float[Tensor, "b n q"]) -> tuple[Float[Tensor, "b n 1"], Float[Tensor, "b n 1"]]:
    """Mean and standard deviation (unbiased) over all values of each patch, the channels together."""
    mean = patches.mean(dim=-1, keepdim=True)
    return mean, (patches.var(dim=-1, keepdim=True) + EPSILON).sqrt()


def normalise_patches(patches: Float[Tensor, "b n q"]) -> Float[Tensor, "b n q"]:
    """MAE's target: each patch with zero mean and unit variance (section 3, "reconstruction target")."""
    mean, std = patch_statistics(patches)
    return (patches - mean) / std


def unnormalise_patches(prediction: Float[Tensor, "b n q"], true: Float[Tensor, "b n q"]) -> Float[Tensor, "b n q"]:
    """A prediction of normalised patches in pixels again, with the statistics of the true patches."""
    mean, std = patch_statistics(true)
    return prediction * std + mean


def hidden_mean_squared_error(
    prediction: Float[Tensor, "b n q"], target: Float[Tensor, "b n q"], hidden: torch.Tensor
) -> Float[Tensor, ""]:
    """Mean over pixels, then over the hidden patches of the whole batch; visible patches contribute nothing. fp32."""
    error = (prediction.float() - target.float()).square().mean(dim=-1)
    return (error * hidden).sum() / hidden.sum()
