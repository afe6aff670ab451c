"""Tasks whose labels have a place in the image: masks or boxes, augmented with it and scored on whole images."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from torch import nn

from mae_kit.data.index.labels import ROWS, Kind, listed_classes
from mae_kit.data.index.open import Index
from mae_kit.data.loading.batch import Batch
from mae_kit.data.transforms.paired import PairedAugment
from mae_kit.encoders import Encoder
from mae_kit.errors import UserError
from mae_kit.files.run_folder import RunFolder
from mae_kit.tasks.classifier import ModelSpec
from mae_kit.tasks.config import Augmentation, FinetuneData
from mae_kit.tasks.headed import HeadedConfig
from mae_kit.tasks.labeled import Labeled, build_with_record, check_unused, open_labeled
from mae_kit.tasks.metrics import Scores
from mae_kit.training.config import Machine, Optimization
from mae_kit.training.samples import Stream
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.pretrained import AnyTimm

PICTURES = 6
Paired = TypeVar("Paired", bound=PairedAugment)


class Dense:
    """What segmentation and detection have in common; the record of a model holds as `model` that of its backbone.

    Attributes:
        kind: Of labels: boxes or masks.

    Args:
        scale: Smallest and largest factor that images are scaled by before they are cropped.

    Raises:
        UserError: They do not ascend.
    """

    kind: Kind
    pooled = False

    def __init__(self, scale: tuple[float, float]):
        super().__init__()
        if scale[0] > scale[1]:
            what = f"task.scale [{scale[0]:g}, {scale[1]:g}] does not ascend"
            raise UserError("task.scale", what, "give the smaller factor first")
        self.scale = scale[0], scale[1]

    def open(self, data: FinetuneData, optimization: Optimization, machine: Machine, seed: int) -> Labeled:
        return open_labeled(data, optimization, machine, seed, partial(listed_classes, kind=self.kind), ROWS[self.kind])

    def model(
        self,
        data: FinetuneData,
        encoder: Encoder | AnyTimm | None,
        spec: ModelSpec | None,
        classes: list[str],
        drop_path: float,
    ) -> tuple[Any, Any]:
        backbone, record = build_with_record(data, encoder, spec, classes, drop_path, headless=True)
        config = self.config_of(record)
        return config.build(backbone), config

    def config_of(self, record: ModelConfig) -> HeadedConfig:
        """The record of a model on a backbone; its `build` makes the model."""
        raise NotImplementedError

    def augment(self, kind: type[Paired], record: Any, augmentation: Augmentation, *unused: str) -> Paired:
        """What moves labels with their images.

        Raises:
            UserError: A setting is given that would tear the two apart, or one of `unused`.
        """
        unused = ("randaugment", "erasing", "mixup", "cutmix", *unused)
        check_unused(augmentation, Augmentation(), unused, "augmentation")
        config, a = record.model, augmentation
        return kind(config.mean, config.std, config.size, self.scale, a.flip, a.color_jitter)

    def learn(self, model: Any, record: Any, stream: Stream) -> Any:
        return replace(record, model=replace(record.model, scale=stream.index.scale))

    def draw(self, model: nn.Module, record: Any, scores: Scores, val: Index, run: RunFolder) -> dict[str, Any]:
        rows = ROWS[self.kind](val)
        some = rows[np.linspace(0, len(rows) - 1, min(PICTURES, len(rows))).astype(int)]
        run.predictions.mkdir(parents=True, exist_ok=True)
        for batch in self.images(val, some, record):
            if len(batch.images):
                self.draw_image(model, record, batch, run, f"{val.keys[int(batch.ids[0])].replace('/', '-')}.png")
        return {}

    def images(self, val: Index, rows: np.ndarray, record: Any) -> Iterable[Batch]:
        """Whole images with their labels, one a batch."""
        raise NotImplementedError

    def draw_image(self, model: Any, record: Any, batch: Batch, run: RunFolder, name: str) -> None:
        """Write a picture of this name: an image next to its labels and to what the model finds."""
        raise NotImplementedError
