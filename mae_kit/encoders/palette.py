"""A palette: the few colors that stand for all colors of a dataset (iGPT, "context reduction")."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from mae_kit.errors import UserError

PIXELS = 2**18  # that k-means sees: 512 for each of the paper's 512 colors
BATCH = 2**14


def nearest_colors(pixels: Float[Tensor, "b n c"], palette: Float[Tensor, "k c"]) -> Int64[Tensor, "b n"]:
    """Find the index of the palette color nearest to each pixel, by Euclidean distance.

    In fp32 even under autocast: bf16 cannot distinguish all colors.
    """
    with torch.autocast(pixels.device.type, enabled=False):
        colors = palette.float()
        distance = colors.square().sum(dim=1) - 2 * pixels.float() @ colors.T  # a pixel's own square is a constant
    return distance.argmin(dim=2)


def fit_palette(pixels: Float32[np.ndarray, "m c"], count: int) -> Float32[np.ndarray, "k c"]:
    """Cluster pixels by k-means; the same pixels give the same colors.

    Args:
        pixels: As the model sees them, normalized.
        count: Number of colors (paper: 512).

    Raises:
        UserError: The pixels have fewer colors, or scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ModuleNotFoundError:
        raise UserError(
            "objective.palette.library", "a palette needs scikit-learn", "pip install 'mae_kit[igpt]'"
        ) from None
    some = np.random.default_rng(0).permutation(len(pixels))[:PIXELS]
    found = len(np.unique(pixels[some], axis=0))
    if found < count:
        key = f"--objective.encoder.colors {found} or less"
        fix = f'give {key}, or in fine-tuning --model.args "{{colors: {found}}}"'
        raise UserError("encoder.colors.images", f"the palette has {count} colors, the images only {found}", fix)
    means: Any = MiniBatchKMeans(count, batch_size=BATCH, random_state=0, compute_labels=False)
    return means.fit(pixels[some]).cluster_centers_.astype(np.float32)
