"""Whole images with the numbers they are labeled with, resized to one size without a crop: a crop shows fewer cells."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mae_kit.data.index.open import Index
from mae_kit.data.loading.batch import Batch
from mae_kit.data.loading.crop import Box, Pixels, central_crop
from mae_kit.data.loading.loader import EvaluationBatches, TrainBatches
from mae_kit.data.scale import decode_on_scale

WHOLE = 1.0, "squash", "bicubic"


class TargetTrainBatches(TrainBatches):
    """As `TrainBatches`; labels are numbers [b t], images are not cropped."""

    def _crop(self, row: int, box: Box) -> Pixels:
        image = decode_on_scale(self.index.read(row), self.channels, self.scale)
        return central_crop(image, self.image_size, *WHOLE, self.scale)

    def __getitem__(self, item: int) -> Batch:
        return _with_targets(super().__getitem__(item), self.index)


class TargetBatches(EvaluationBatches):
    """As `EvaluationBatches`, of whole images; labels are numbers [b t]."""

    def __init__(self, index: Index, batch_size: int, image_size: tuple[int, int], channels: int, rows: np.ndarray):
        super().__init__(index, rows, batch_size, image_size, channels, *WHOLE)

    def __getitem__(self, item: int) -> Batch:
        return _with_targets(super().__getitem__(item), self.index)


def _with_targets(batch: Batch, index: Index) -> Batch:
    return batch._replace(labels=targets_of(index, batch.ids.numpy()))


def targets_of(index: Index, rows: np.ndarray) -> Float[Tensor, "b t"]:
    """The numbers of samples that have them."""
    assert index.targets is not None
    return torch.from_numpy(index.targets.values[rows]).float()
