"""What an encoder says of your images: features as colors, and the images that it finds most alike."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from mae_kit.console import progress
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.loading.loader import EvaluationBatches
from mae_kit.data.remote.filesystem import Place
from mae_kit.evaluation.knn import nearest
from mae_kit.plots.encoder import BATCH, Eye
from mae_kit.plots.features import principal_colors, without_places
from mae_kit.plots.figures import must_be_png, save_figure, show_photo, tile_size, tiles
from mae_kit.training.config import must_be_positive

log = logging.getLogger(__name__)

NEIGHBORS = 6
COMPARED = 256  # images whose patches the components are of


class Neighbors(NamedTuple):
    """For each image the most alike of a shard set, best first.

    Attributes:
        images: uint8.
        cosines: Of the mean patch features.
        names: Keys in the shards.
    """

    images: UInt8[Tensor, "b k c h w"]
    cosines: list[list[float]]
    names: list[list[str]]


def features(
    encoder: Path, images: Place, out: Path = Path("features.png"), neighbors: Place | None = None, count: int = 8
) -> dict[str, Any]:
    """Draw the patch features of an encoder as colors: patches of like color, in any image, have like features.

    Of encoders that pool, as Swin, ConvNeXt and Hiera, the cells of the last stage take the place of patches.

    Args:
        encoder: A pretraining run, or its encoder.safetensors.
        images: An image, a folder of images or of shards, or a tar; any size. Up to 256 of them are compared; of at
            least 16 what all features at a place have in common is taken off, which is the place and not the image.
        out: The picture to write, PNG.
        neighbors: Shards to search for the images that are most alike each image, which are then drawn beside it.
        count: How many images are drawn at most, spread evenly over them.

    Returns:
        The picture's path, the share of the variance that red, green and blue explain, and the neighbors' names and
        cosines.

    Raises:
        UserError: No encoder, no images or no shards.
    """
    must_be_positive({"count": count})
    must_be_png(out)
    eye = Eye(encoder)
    pixels, names = eye.load(images, max(count, COMPARED))
    tokens = eye.patch_tokens(pixels)
    colors, shares = principal_colors(without_places(tokens))
    found = find_neighbors(eye, tokens[:count].mean(dim=1), open_index(neighbors)) if neighbors else None
    save_figure(out, features_figure(eye, pixels[:count], colors[:count], found))
    log.info(f"{out}: of {len(pixels)} images; the colors show {sum(shares):.0%} of the variance")
    result = {"picture": str(out), "images": names[:count], "explained": shares}
    if found is None:
        return result
    pairs = (zip(*pair, strict=True) for pair in zip(found.names, found.cosines, strict=True))
    return result | {"neighbors": [[{"image": name, "cosine": value} for name, value in pair] for pair in pairs]}


def find_neighbors(eye: Eye, queries: Float[Tensor, "b d"], index: Index) -> Neighbors:
    """Search a whole shard set, a batch in memory at a time; images that do not decode are left out."""
    encoder, shown = eye.encoder, []
    batches = EvaluationBatches(index, np.arange(len(index)), BATCH, encoder.image_size, encoder.channels)
    with progress("Searching", total=len(index)) as advance:

        def bank() -> Iterator[Tensor]:
            for batch in batches:
                shown.append(batch.ids)
                advance(len(batch.ids) + len(batch.bad))
                if len(batch.ids):
                    yield eye.patch_tokens(batch.images).mean(dim=1)

        cosines, places = nearest(bank(), queries, NEIGHBORS)
    rows = torch.cat(shown).numpy()[places.cpu().numpy()]
    one = EvaluationBatches(index, rows.flatten(), rows.size, encoder.image_size, encoder.channels)[0]
    names = [[index.keys[int(place)] for place in row] for row in rows]
    return Neighbors(one.images.unflatten(0, rows.shape), cosines.tolist(), names)


def features_figure(
    eye: Eye, images: UInt8[Tensor, "b c h w"], colors: Float[Tensor, "b n 3"], found: Neighbors | None
) -> Figure:
    """Input | colors | neighbors with their cosines, a row an image."""
    height, width = tile_size(eye.encoder.image_size)
    titles = ["input", "features", *([""] * found.images.shape[1] if found else [])]
    figure = Figure(figsize=(len(titles) * width, len(images) * height + 0.3), layout="constrained")
    axes = tiles(figure, len(images), titles)
    for i, (row, image) in enumerate(zip(axes, images, strict=True)):
        show_photo(row[0], image)
        row[1].imshow(colors[i].unflatten(0, eye.encoder.cells).cpu().numpy(), interpolation="nearest")
        row[1].set_aspect(eye.encoder.stride[0] / eye.encoder.stride[1])
        if found:
            for axis, neighbor, cosine in zip(row[2:], found.images[i], found.cosines[i], strict=True):
                show_photo(axis, neighbor)
                axis.set_title(f"{cosine:.3f}", fontsize=8)
    return figure
