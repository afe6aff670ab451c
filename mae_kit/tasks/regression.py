"""Regression: one or several numbers for every image."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.functional.regression import mean_absolute_error, r2_score

from mae_kit.data.index.open import Index
from mae_kit.data.loading.batch import Batch
from mae_kit.data.loading.loader import Replica
from mae_kit.data.loading.targets import TargetBatches, TargetTrainBatches
from mae_kit.data.transforms.augment import FinetuneAugment
from mae_kit.encoders import Encoder
from mae_kit.errors import UserError
from mae_kit.evaluation.metrics import class_rows
from mae_kit.tasks.classifier import ModelSpec
from mae_kit.tasks.config import Augmentation, FinetuneData
from mae_kit.tasks.labeled import Labeled, build_with_record, check_unused, open_labeled
from mae_kit.tasks.metrics import AllRows, Scores
from mae_kit.tasks.regressor import Regressor, save_regressor
from mae_kit.tasks.supervised import HeadedModule
from mae_kit.tasks.task import Task
from mae_kit.training.config import Machine, Optimization
from mae_kit.training.run import Run
from mae_kit.training.samples import Stream
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.pretrained import AnyTimm

Loss = Literal["l1", "l2", "huber"]
LOSSES = {"l1": F.l1_loss, "l2": F.mse_loss, "huber": F.huber_loss}
BATCH = 128
SHOWN = 2000  # pairs of a prediction and the truth that the result holds


class Regression(Task):
    """One or several numbers for every image, from a table of numbers (`mae-kit shard --labels TABLE.csv`).

    Whole images are resized to `data.image_size`, height and width, and not cropped. The loss is computed on numbers
    standardized by their mean and standard deviation over the training images.

    Args:
        loss: l1 = absolute error; l2 = squared error; huber = squared below one standard deviation, absolute above.

    Example:
        >>> import torch, mae_kit as mk
        >>> from mae_kit.tasks.config import FinetuneData
        >>> from mae_kit.tasks.classifier import ModelSpec
        >>> vit = ModelSpec("vit_tiny_patch16_224", {"patch_size": 8, "depth": 2})
        >>> data = FinetuneData("shards", batch_size=8, image_size=64, mean=[0.5] * 3, std=[0.2] * 3)
        >>> regressor, record = mk.Regression().model(data, None, vit, ["cells"], drop_path=0.0)
        >>> regressor(torch.randn(2, 3, 64, 64)).shape
        torch.Size([2, 1])
    """

    def __init__(self, loss: Loss = "l2"):
        super().__init__()
        self.loss: Loss = loss

    def open(self, data: FinetuneData, optimization: Optimization, machine: Machine, seed: int) -> Labeled:
        return open_labeled(data, optimization, machine, seed, target_names, Index.targeted)

    def model(
        self,
        data: FinetuneData,
        encoder: Encoder | AnyTimm | None,
        spec: ModelSpec | None,
        classes: list[str],
        drop_path: float,
    ) -> tuple[Regressor, ModelConfig]:
        built, config = build_with_record(data, encoder, spec, classes, drop_path)
        return Regressor(built, len(classes)), replace(config, crop_pct=1.0, crop_mode="squash")

    def learn(self, model: Any, record: ModelConfig, stream: Stream) -> ModelConfig:
        assert stream.index.targets is not None
        values = stream.index.targets.values[stream.rows]
        std = values.std(axis=0)
        model.mean.copy_(torch.from_numpy(values.mean(axis=0)))
        model.std.copy_(torch.from_numpy(np.where(std > 0, std, 1.0)))
        return replace(record, scale=stream.index.scale)

    def batches(self, stream: Stream, data: FinetuneData, record: ModelConfig) -> TargetTrainBatches:
        return stream.batches(record.size, record.channels, kind=TargetTrainBatches)

    def module(
        self,
        model: Any,
        record: ModelConfig,
        augmentation: Augmentation,
        optimization: Optimization,
        ema: float | None,
        seed: int,
    ) -> "RegressModule":
        check_unused(augmentation, Augmentation(), ("mixup", "cutmix"), "augmentation")
        augment = FinetuneAugment(record.mean, record.std, 1, **asdict(augmentation))
        return RegressModule(model, augment, optimization, self.loss, ema, seed)

    def scores(self, val: Index, record: ModelConfig, every: int, replica: Replica, run: Run) -> "RegressionScores":
        mine = val.targeted()[replica.rank :: replica.world_size]
        held_out = TargetBatches(val, BATCH, record.size, record.channels, mine)
        return RegressionScores(held_out, len(record.classes), every, run)

    def save(self, folder: Path, model: Any, record: ModelConfig) -> Path:
        return save_regressor(folder, model, record)


def target_names(train: Index, val: Index, names: tuple[str, str]) -> list[str]:
    """Names of the numbers, which both sides must agree on; other arguments as of `common_classes`.

    Raises:
        UserError: A side has no targets, or others.
    """
    for index, where in zip((train, val), names, strict=True):
        if index.targets is None or not len(index.targeted()):
            fix = "pack the images with `mae-kit shard --labels TABLE.csv`, with a column file and columns of numbers"
            raise UserError("data.targets", f"{where} has no numbers to learn", fix)
    ours, theirs = (index.targets.names for index in (train, val) if index.targets)
    if ours != theirs:
        what = f"{names[0]} and {names[1]} have different numbers: {', '.join(ours)} and {', '.join(theirs)}"
        raise UserError("data.targets.differ", what, "pack both from tables with the same columns")
    return ours


class RegressModule(HeadedModule):
    """Train a regressor on images with numbers.

    Args:
        model: What is trained; what needs no gradients stays in eval mode.
        augment: What happens to the images of a batch on the device.
        optimization: Of the training.
        loss: l1, l2 or huber, of standardized numbers.
        ema: Decay of a moving average of the weights.
        seed: Of everything random.
    """

    def __init__(
        self,
        model: Regressor,
        augment: FinetuneAugment,
        optimization: Optimization,
        loss: Loss = "l2",
        ema: float | None = None,
        seed: int = 0,
    ):
        super().__init__(model, optimization, ema, seed)
        self.augment, self.loss_of_numbers = augment, LOSSES[loss]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        found = self.model.standardized(self.augment.alone(batch.images)).float()
        return {"loss": self.loss_of_numbers(found, (batch.labels - self.model.mean) / self.model.std)}

    def compile_model(self) -> None:
        self.model.backbone.compile()


class RegressionScores(Scores):
    """R2 and mean absolute error: their means over the numbers, and a row for each.

    Args:
        batches: This rank's part of the images with numbers.
        numbers: How many.
        every: Steps between two scores.
        run: Of the training.
    """

    def __init__(self, batches: Iterable[Batch], numbers: int, every: int, run: Run | None = None):
        rows = {"found": AllRows(numbers), "true": AllRows(numbers)}
        super().__init__(batches, every, ("r2", "mae"), MetricCollection(dict(rows), compute_groups=False), run)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        self.metrics["found"].update(logits)
        self.metrics["true"].update(labels)

    def found(self, computed: dict[str, Tensor]) -> dict[str, Any]:
        found, true = computed["found"].double(), computed["true"].double()
        mae = mean_absolute_error(found, true, num_outputs=found.shape[1]).reshape(-1)
        r2 = r2_score(found, true, multioutput="raw_values").reshape(-1) if len(true) > 1 else torch.full_like(mae, 0)
        return {
            "r2": float(r2.mean()),
            "mae": float(mae.mean()),
            "samples": len(true),
            "of_numbers": {"r2": r2.numpy(), "mae": mae.numpy(), "mean": true.mean(dim=0).numpy()},
            "predicted": found[:SHOWN].T.tolist(),
            "true": true[:SHOWN].T.tolist(),
        }

    def result(self, classes: list[str]) -> dict[str, Any]:
        rows = class_rows(self._found["of_numbers"], classes)
        return self._found | {"of_numbers": rows}
