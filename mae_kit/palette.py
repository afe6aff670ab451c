"""A palette: the few colours that stand for all colours of a data set (iGPT, "context reduction")."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from mae_kit.errors import UserError

PIXELS = 2**18  # what the colours are found from: 512 for each of the paper's 512
BATCH = 2**14


def nearest_colours(pixels: Float[Tensor, "b n c"], palette: Float[Tensor, "k c"]) -> Int64[Tensor, "b n"]:
    """The place in the palette of the colour nearest to each pixel, by Euclidean distance.

    In fp32 under autocast too: bf16 tells 256 levels apart, not all colours.
    """
    with torch.autocast(pixels.device.type, enabled=False):
        colours = palette.float()
        distance = colours.square().sum(dim=1) - 2 * pixels.float() @ colours.T  # the pixel's square is the same to all
    return distance.argmin(dim=2)


def fit_palette(pixels: Float32[np.ndarray, "m c"], count: int) -> Float32[np.ndarray, "k c"]:
    """Centres of a k-means over pixels; the same pixels give the same colours.

    Args:
        pixels: As the model is given them.
        count: How many colours (paper: 512).

    Raises:
        UserError: The pixels have fewer colours, or scikit-learn is not there.
    """
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ModuleNotFoundError:
        raise UserError("a palette needs scikit-learn", "pip install 'mae_kit[igpt]'") from None
    some = np.random.default_rng(0).permutation(len(pixels))[:PIXELS]
    found = len(np.unique(pixels[some], axis=0))
    if found < count:
        key = f"--objective.init_args.encoder.init_args.colours {found} or less"
        fix = f'give {key}, in a fine-tuning --model.args "{{colours: {found}}}"'
        raise UserError(f"a palette of {count} colours of images that have {found}", fix)
    means: Any = MiniBatchKMeans(count, batch_size=BATCH, random_state=0, compute_labels=False)
    return means.fit(pixels[some]).cluster_centers_.astype(np.float32)
