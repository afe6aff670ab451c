"""Frozen patch tokens as features of pixels: nearest neighbors and a linear layer, scored by the mean IoU.

The protocol of DINOv2 (arXiv 2304.07193) and CAPI (arXiv 2502.08769), but that whole images are seen at the resolution
they are stored in, through windows of the encoder's size, and a patch has the most frequent class of its pixels.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from mae_kit.console import progress
from mae_kit.data.decode import IGNORED
from mae_kit.data.index.open import Index
from mae_kit.data.loading.decoded import decoded
from mae_kit.data.loading.masks import MaskedImages
from mae_kit.data.transforms.augment import Normalize
from mae_kit.encoders import Encoder
from mae_kit.evaluation.features import layers_of
from mae_kit.evaluation.knn import knn_predict
from mae_kit.evaluation.pixels import PixelCounts, count_pixels, stack
from mae_kit.evaluation.probe import fit_probe
from mae_kit.evaluation.windows import WINDOWS, cut, padded_to, window_logits, window_places
from mae_kit.parallel.device import frozen_device

KNN, PROBE = "patch_knn", "patch_probe"
MOST = 65_536  # of all training images together: what is fitted to is held in memory

Head = Callable[[Float[Tensor, "m d"]], Float[Tensor, "m k"]]
"""Scores of the classes of patches."""
Fit = Callable[[Float[Tensor, "m d"], Int64[Tensor, " m"], int], Head]


@torch.no_grad()
def score_patches(
    encoder: Any, train: Index, val: Index, methods: dict[str, Fit], layers: Sequence[int] = ()
) -> dict[tuple[str, int], PixelCounts]:
    """Fit every method to the patches of training images, at every layer, and predict the validation images.

    Args:
        encoder: As `load_encoder` returns it.
        train: Shards with masks.
        val: Shards with masks of the same classes.
        methods: By name, as of `fits`.
        layers: Layers of the encoder; by default the last.

    Returns:
        The pixels of each validation image, by method and layer.

    Raises:
        UserError: `layers`: the encoder has no such layer.
    """
    model = encoder.to(frozen_device())
    numbers, classes = layers_of(encoder, layers), val.class_count
    known = _patches(model, train, numbers, classes)
    heads: dict[tuple[str, int], Head] = {}
    for name, fit in methods.items():
        for layer, (features, labels) in known.items():
            with torch.enable_grad():
                heads[name, layer] = fit(features, labels, classes)
    predict = _Predictor(model, numbers, heads)
    images = {key: list[Any]() for key in heads}
    for pixels, mask in _images(model, val, "Scoring"):
        logits = window_logits(predict, pixels, model.image_size, 0).unflatten(1, (len(heads), classes))
        for found, counted in zip(logits[0].argmax(dim=1).cpu(), images.values(), strict=True):
            counted.append(count_pixels(found.numpy().astype(np.uint8), mask[0].numpy(), classes))
    return {key: stack(counted) for key, counted in images.items()}


def fits(names: Sequence[str], k: int, temperature: float, epochs: int, batch_size: int, seed: int) -> dict[str, Fit]:
    """The methods of these names; arguments as of `knn_predict` and `fit_probe`."""

    def knn(features: Tensor, labels: Tensor, classes: int) -> Head:
        votes = F.one_hot(labels, classes).bool()
        return lambda queries: knn_predict(features, votes, queries, classes, k, temperature)

    def linear(features: Tensor, labels: Tensor, classes: int) -> Head:
        probe, _ = fit_probe(features, labels, classes, epochs, batch_size, seed)
        return lambda queries: probe(queries)[0]

    return {name: fit for name, fit in {KNN: knn, PROBE: linear}.items() if name in names}


def _patches(encoder: Encoder, index: Index, layers: list[int], classes: int) -> dict[int, tuple[Tensor, Tensor]]:
    """Features and classes of patches of each layer, as many of each image, drawn by its place in the shards."""
    each = math.ceil(MOST / len(index.masked()))
    kept = {layer: list[tuple[Tensor, Tensor]]() for layer in layers}
    for number, (image, mask) in enumerate(_images(encoder, index, "Encoding")):
        window, draw = encoder.image_size, torch.Generator().manual_seed(number)
        pixels, numbers = padded_to(image, window), padded_to(mask[:, None], window, IGNORED)
        places = window_places(pixels.shape[2:], window, 0)
        chunks = [places[i : i + WINDOWS] for i in range(0, len(places), WINDOWS)]
        maps = [layer_maps(encoder, cut(pixels, some, window), layers) for some in chunks]
        for layer, parts in zip(layers, zip(*maps, strict=True), strict=True):
            features = torch.cat(parts)
            labels = cell_classes(cut(numbers, places, window)[:, 0], features.shape[2:], classes)
            rows = torch.nonzero(labels != IGNORED)[:, 0]
            rows = rows[torch.randperm(len(rows), generator=draw)[:each]]
            kept[layer].append((features.permute(0, 2, 3, 1).flatten(0, 2)[rows], labels[rows].to(features.device)))
    return {layer: (torch.cat(x), torch.cat(y)) for layer, found in kept.items() for x, y in [zip(*found, strict=True)]}


def _images(encoder: Any, index: Index, what: str) -> Any:
    """Normalized images [1 c h w] and their masks [1 h w]; how many were left out is logged."""
    config, device = encoder.pretrained_cfg, next(encoder.parameters()).device
    normalize = Normalize(config.mean, config.std).to(device)
    batches = MaskedImages(index, index.masked(), config.channels)
    with progress(what, len(batches), "images") as advance:
        for batch in decoded(batches, str(index.folder), advance):
            yield normalize(batch.images.to(device)), batch.labels


def layer_maps(
    encoder: Encoder, images: Float[Tensor, "b c h w"], layers: Sequence[int]
) -> list[Float[Tensor, "b _ _ _"]]:
    """Tokens after some of the layers as maps [b d y x]; those of early stages have more cells than the last."""
    rows, columns = encoder.cells
    maps = []
    for tokens in encoder.layers(images, layers):
        cells = tokens[:, encoder.prefix :].mT
        by = math.isqrt(cells.shape[2] // (rows * columns))
        maps.append(cells.unflatten(2, (rows * by, columns * by)))
    return maps


def cell_classes(masks: UInt8[Tensor, "n h w"], grid: Sequence[int], classes: int) -> Int64[Tensor, " m"]:
    """The most frequent class of the pixels of each cell, row by row; 255 where all are ignored.

    Args:
        masks: Of windows.
        grid: Rows and columns of cells, which divide them.
        classes: Number of classes.
    """
    rows, columns = grid
    cells = masks.unflatten(2, (columns, -1)).unflatten(1, (rows, -1)).transpose(2, 3).flatten(3).flatten(0, 2).long()
    counts = torch.zeros(len(cells), IGNORED + 1).scatter_add_(1, cells, torch.ones_like(cells, dtype=torch.float32))
    most, found = counts[:, :classes].max(dim=1)
    return found.where(most > 0, IGNORED)


class _Predictor(nn.Module):
    """Gives every pixel of a window the scores of all heads, interpolated between its patches."""

    def __init__(self, encoder: Encoder, layers: list[int], heads: dict[tuple[str, int], Head]):
        super().__init__()
        self.encoder, self.layers, self.heads = encoder, layers, heads

    def forward(self, windows: Float[Tensor, "b c h w"]) -> Float[Tensor, "b _ h w"]:
        maps = dict(zip(self.layers, layer_maps(self.encoder, windows, self.layers), strict=True))
        resize = partial(F.interpolate, size=windows.shape[2:], mode="bilinear")
        return torch.cat([resize(_on_map(head, maps[layer])) for (_, layer), head in self.heads.items()], dim=1)


def _on_map(head: Head, features: Float[Tensor, "b d y x"]) -> Float[Tensor, "b k y x"]:
    b, _, y, x = features.shape
    return head(features.permute(0, 2, 3, 1).flatten(0, 2)).unflatten(0, (b, y, x)).permute(0, 3, 1, 2)
