"""Whole images with their boxes, fitted into one size; the device draws what is cropped of both."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor

from mae_kit.data.index.boxes import Objects
from mae_kit.data.index.open import Index
from mae_kit.data.loading.batch import Batch
from mae_kit.data.loading.crop import Box, whole
from mae_kit.data.loading.loader import TrainBatches, quarantine_line
from mae_kit.data.scale import decode_on_scale
from mae_kit.errors import BadImage

ABSENT = -1.0
Boxed = tuple[Num[Tensor, "c y x"], Float[Tensor, "m 6"]]


class BoxedTrainBatches(TrainBatches):
    """Item `step * micro_batches + number` is this rank's micro-batch of that step, not cropped.

    Images are scaled to fit into `image_size`, and padded on the right and below. Order and seeds are those of
    `TrainBatches`.
    """

    def _crop(self, row: int, box: Box) -> Boxed:
        return read_boxed(self.index, row, self.channels, self.image_size)

    def _batch(self, images: list[Any], ids: np.ndarray, due: Tensor, shown: Tensor, bad: list[str]) -> Batch:
        return _as_batch(images, self.image_size, self.channels, torch.from_numpy(ids), due, shown, bad)


class BoxedBatches:
    """Item `i` is the i-th batch of the rows in their order, as they are trained on; bad images are left out.

    Args:
        index: Shards with boxes.
        rows: Rows of the index that have them.
        batch_size: Images an item.
        image_size: Height and width that images are fitted into.
        channels: Channels to decode to.
    """

    def __init__(self, index: Index, rows: np.ndarray, batch_size: int, image_size: tuple[int, int], channels: int = 3):
        self.index, self.rows, self.batch_size = index, rows, batch_size
        self.image_size, self.channels = image_size, channels

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return (self[item] for item in range(len(self)))

    def __getitem__(self, item: int) -> Batch:
        images, ids, bad = [], list[int](), list[str]()
        for row in self.rows[item * self.batch_size : (item + 1) * self.batch_size].tolist():
            try:
                images.append(read_boxed(self.index, row, self.channels, self.image_size))
                ids.append(row)
            except BadImage as error:
                bad.append(quarantine_line(self.index, row, error))
        rows = torch.tensor(ids, dtype=torch.int64)
        return _as_batch(images, self.image_size, self.channels, rows, rows, rows, bad)


def read_boxed(index: Index, row: int, channels: int, size: tuple[int, int]) -> Boxed:
    """Decode an image and scale it and its boxes to fit into a size.

    Returns:
        The image, [c h w], and for each object its edges in pixels, its class, and 1 for a crowd.

    Raises:
        BadImage: It does not decode.
    """
    assert index.boxes is not None
    image = whole(decode_on_scale(index.read(row), channels, index.scale), index.scale)
    return fitted(image, index.boxes.of(row), size)


def fitted(image: Num[Tensor, "c h w"], objects: Objects, size: tuple[int, int]) -> Boxed:
    """Scale an image, of values from 0 to 255, and its objects to fit into a size; otherwise as `read_boxed`."""
    height, width = image.shape[1:]
    zoom = min(size[0] / height, size[1] / width)
    shape = tuple(max(1, min(most, round(side * zoom))) for side, most in zip((height, width), size, strict=True))
    if shape != (height, width):
        image = F.interpolate(image[None], size=shape, mode="bicubic", antialias=True)[0].clamp(0, 255)
    factors = np.array([shape[1] / width, shape[0] / height] * 2, np.float32)
    columns = objects.xyxy * factors, objects.label[:, None], objects.crowd[:, None]
    return image, torch.from_numpy(np.concatenate(columns, axis=1).astype(np.float32))


def _as_batch(
    images: list[Any], size: tuple[int, int], channels: int, ids: Tensor, due: Tensor, shown: Tensor, bad: list[str]
) -> Batch:
    kind = images[0][0].dtype if images else torch.uint8
    pixels = torch.zeros(len(images), channels, *size, dtype=kind)
    boxes = torch.full((len(images), max((len(one) for _, one in images), default=0), 6), ABSENT)
    for i, (image, one) in enumerate(images):
        pixels[i, :, : image.shape[1], : image.shape[2]] = image
        boxes[i, : len(one)] = one
    sizes = torch.tensor([image.shape[1:] for image, _ in images], dtype=torch.int64).reshape(-1, 2)
    return Batch(pixels, boxes, due, ids, shown, bad, sizes)
