"""Patch features as colors, and nearest neighbors by features."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Num
from matplotlib.figure import Figure
from torch import Tensor

from mae_kit.console import progress
from mae_kit.data.index.open import Index
from mae_kit.data.index.statistics import share_scale
from mae_kit.data.loading.loader import EvaluationBatches
from mae_kit.evaluation.knn import nearest
from mae_kit.plots.encoder import BATCH, FrozenEncoder
from mae_kit.plots.figures import show_photo, tile_size, tiles

TAILS = 0.02  # fraction of the values clipped at either end: outliers would take all the contrast
MANY = 16  # images whose mean feature depends on the place only
NEIGHBORS = 6


class Neighbors(NamedTuple):
    """For each image the nearest images of a set of shards, best first.

    Attributes:
        images: uint8.
        cosines: Of the mean patch features.
        names: Files they were packed from; keys in the shards where those are unknown.
    """

    images: Num[Tensor, "b k c h w"]
    cosines: list[list[float]]
    names: list[list[str]]


def without_places(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """Subtract from each patch feature the mean over the images at the same place.

    The largest components of a masked autoencoder's features encode the place of a patch. With fewer than `MANY` images
    the mean would depend on the images: their features are returned as they are.
    """
    return tokens - tokens.mean(dim=0) if len(tokens) >= MANY else tokens


def principal_colors(tokens: Float[Tensor, "b n d"]) -> tuple[Float[Tensor, "b n 3"], list[float]]:
    """Map the first three principal components over all patches of all images to red, green and blue.

    Signs are fixed by the largest coordinate of each component, so that equal features get equal colors.

    Args:
        tokens: Features of patches, without prefix tokens; d is at least 3.

    Returns:
        Colors in 0..1, and the fraction of the variance that each component explains.
    """
    x = tokens.flatten(0, 1).double()
    x = x - x.mean(dim=0)
    variances, directions = torch.linalg.eigh(x.T @ x)
    directions = directions[:, -3:].flip(dims=[1])
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    along = x @ (directions * largest.sign())
    colors = torch.stack([_stretched(component) for component in along.unbind(dim=1)], dim=1)
    fractions = variances[-3:].flip(dims=[0]) / variances.sum()
    return colors.float().unflatten(0, tokens.shape[:2]), fractions.tolist()


def _stretched(values: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Rescale to 0..1, with the tails clipped."""
    cut = int(TAILS * (len(values) - 1))
    ordered = values.sort().values
    low, high = ordered[cut], ordered[-1 - cut]
    return ((values - low) / (high - low)).clamp(0, 1)


def find_neighbors(frozen: FrozenEncoder, queries: Float[Tensor, "b d"], index: Index) -> Neighbors:
    """Search a set of shards batch by batch; images that cannot be decoded are left out."""
    encoder, shown = frozen.encoder, []
    share_scale(frozen.scale, index)
    batches = EvaluationBatches(index, np.arange(len(index)), BATCH, encoder.image_size, encoder.channels)
    with progress("Searching", total=len(index)) as advance:

        def bank() -> Iterator[Tensor]:
            for batch in batches:
                shown.append(batch.ids)
                advance(len(batch.ids) + len(batch.bad))
                if len(batch.ids):
                    yield frozen.patch_tokens(batch.images).mean(dim=1)

        cosines, places = nearest(bank(), queries, NEIGHBORS)
    rows = torch.cat(shown).numpy()[places.cpu().numpy()]
    one = EvaluationBatches(index, rows.flatten(), rows.size, encoder.image_size, encoder.channels)[0]
    names = [[index.file(place) or index.keys[place] for place in row] for row in rows.tolist()]
    return Neighbors(one.images.unflatten(0, rows.shape), cosines.tolist(), names)


def features_figure(
    frozen: FrozenEncoder, images: Num[Tensor, "b c h w"], colors: Float[Tensor, "b n 3"], found: Neighbors | None
) -> Figure:
    """Draw input | colors | neighbors with their cosines, a row for each image."""
    height, width = tile_size(frozen.encoder.image_size)
    titles = ["input", "features", *([""] * found.images.shape[1] if found else [])]
    figure = Figure(figsize=(len(titles) * width, len(images) * height + 0.3), layout="constrained")
    axes = tiles(figure, len(images), titles)
    for i, (row, image) in enumerate(zip(axes, images, strict=True)):
        show_photo(row[0], image)
        row[1].imshow(colors[i].unflatten(0, frozen.encoder.cells).cpu().numpy(), interpolation="nearest")
        row[1].set_aspect(frozen.encoder.stride[0] / frozen.encoder.stride[1])
        if found:
            for axis, neighbor, cosine in zip(row[2:], found.images[i], found.cosines[i], strict=True):
                show_photo(axis, neighbor)
                axis.set_title(f"{cosine:.3f}", fontsize=8)
    return figure
