"""Images in the plane, close together where their features are similar (t-SNE: van der Maaten & Hinton, JMLR 2008)."""

import numpy as np
from jaxtyping import Float, Float32, Num
from matplotlib.figure import Figure
from torch import Tensor

from mae_kit.data.loading.images import as_rgb
from mae_kit.errors import UserError
from mae_kit.plots.figures import tile_size

FEWEST = 8  # images; fewer have no neighborhoods
INCHES, THUMBNAIL = 9.0, 0.4
PERPLEXITY = 30


def plane(features: Float[Tensor, "b d"]) -> Float32[np.ndarray, "b 2"]:
    """Place images by t-SNE of the cosines of their features, initialized with the principal components.

    Raises:
        UserError: `show.map`: scikit-learn is not installed, or there are too few images.
    """
    if len(features) < FEWEST:
        raise UserError("show.map.few", f"{len(features)} images are too few for a map", f"give {FEWEST} or more")
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise UserError("show.map.sklearn", "scikit-learn is not installed", "pip install 'mae_kit[map]'") from None
    directions = features / features.norm(dim=1, keepdim=True).clamp(min=1e-12)
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    return TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(directions.cpu().double().numpy())


def map_figure(images: Num[Tensor, "b c h w"], places: Float32[np.ndarray, "b 2"]) -> Figure:
    """Draw each image small at its place; those in front are drawn last."""
    figure = Figure(figsize=(INCHES, INCHES), layout="constrained")
    axis = figure.subplots()
    low, high = places.min(axis=0), places.max(axis=0)
    unit = (places - low) / np.maximum(high - low, 1e-12)
    height, width = (side / tile_size((1, 1))[0] * THUMBNAIL / INCHES / 2 for side in tile_size(images.shape[-2:]))  # type: ignore[arg-type]
    for image, (x, y) in zip(images, unit.tolist(), strict=True):
        axis.imshow(as_rgb(image), extent=(x - width, x + width, y - height, y + height), interpolation="nearest")
    axis.set(xlim=(-2 * width, 1 + 2 * width), ylim=(-2 * height, 1 + 2 * height), aspect="equal")
    axis.set_axis_off()
    axis.set_title(f"{len(images):,} images, close where their features are similar", fontsize=9)
    return figure
