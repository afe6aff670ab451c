"""Whole images with their masks: what is cropped of them is drawn on the device, for both alike."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from mae_kit.data.decode import IGNORED, decode_mask
from mae_kit.data.index.open import Index
from mae_kit.data.loading.batch import Batch
from mae_kit.data.loading.crop import Box, Pixels, whole
from mae_kit.data.loading.loader import TrainBatches, quarantine_line
from mae_kit.data.scale import decode_on_scale
from mae_kit.errors import BadImage

Masked = tuple[Pixels, UInt8[Tensor, "h w"]]


class MaskedTrainBatches(TrainBatches):
    """Item `step * micro_batches + number` is this rank's micro-batch of that step, not cropped.

    Images and masks are padded on the right and below to the largest of the batch, masks with 255. Order and seeds are
    those of `TrainBatches`; its `image_size` is what the device crops to.
    """

    @property
    def nbytes(self) -> int:
        """Bytes of the images and masks of a batch of the largest ones."""
        images = self.batch_size // self.replica.world_size // self.replica.micro_batches
        largest = self.index.height[self.rows].max(), self.index.width[self.rows].max()
        return images * (self.channels * (4 if self.scale else 1) + 1) * math.prod(map(int, largest))

    def _crop(self, row: int, box: Box) -> Masked:
        return read_masked(self.index, row, self.channels)

    def _batch(self, images: list[Any], ids: np.ndarray, due: Tensor, shown: Tensor, bad: list[str]) -> Batch:
        sizes = torch.tensor([mask.shape for _, mask in images])
        height, width = sizes.amax(0).tolist()
        pixels = torch.zeros(len(images), self.channels, height, width, dtype=images[0][0].dtype)
        masks = torch.full((len(images), height, width), IGNORED, dtype=torch.uint8)
        for i, (image, mask) in enumerate(images):
            pixels[i, :, : mask.shape[0], : mask.shape[1]] = image
            masks[i, : mask.shape[0], : mask.shape[1]] = mask
        return Batch(pixels, masks, due, torch.from_numpy(ids), shown, bad, sizes)


class MaskedImages:
    """Whole images with their masks, one a batch, for scoring; those that do not decode are left out and listed.

    Args:
        index: Shards with masks.
        rows: Rows of the index that have one.
        channels: Channels to decode to.
    """

    def __init__(self, index: Index, rows: np.ndarray, channels: int = 3):
        self.index, self.rows, self.channels = index, rows, channels

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Batch]:
        return (self[item] for item in range(len(self)))

    def __getitem__(self, item: int) -> Batch:
        row = int(self.rows[item])
        ids, bad = torch.tensor([row]), []
        try:
            image, mask = read_masked(self.index, row, self.channels)
        except BadImage as error:
            bad, ids = [quarantine_line(self.index, row, error)], ids[:0]
            image, mask = torch.empty(self.channels, 0, 0, dtype=torch.uint8), torch.empty(0, 0, dtype=torch.uint8)
        return Batch(image[None][: len(ids)], mask[None][: len(ids)], ids, ids, ids, bad)


def read_masked(index: Index, row: int, channels: int) -> Masked:
    """Decode an image, [c h w], and its mask, uint8 [h w].

    Raises:
        BadImage: One of them does not decode, they differ in size, or the mask shows a class that is not known.
    """
    image = whole(decode_on_scale(index.read(row), channels, index.scale), index.scale)
    mask = decode_mask(index.read_mask(row))
    if mask.shape != image.shape[1:]:
        raise BadImage(f"mask of another size: {list(mask.shape)} for an image of {list(image.shape[1:])}")
    if (largest := int(mask[mask != IGNORED].max(initial=0))) >= index.class_count:
        raise BadImage(f"mask with a class that is not known: {largest} of {index.class_count} classes")
    return image, torch.from_numpy(mask)
