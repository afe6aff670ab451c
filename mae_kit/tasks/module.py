"""A classifier in training."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mae_kit.data.transforms.augment import FinetuneAugment
from mae_kit.tasks.config import Augmentation
from mae_kit.tensors import Batch
from mae_kit.training.config import Optimization, Plan
from mae_kit.training.freezing import frozen_parts
from mae_kit.training.module import Training
from mae_kit.training.optimizer import Group, layer_decay_groups
from mae_kit.training.run import Run
from mae_kit.weights.native import ClassifierConfig


class Finetuning(Training):
    """A classifier in training.

    Args:
        model: The classifier; what needs no gradients stays in eval mode.
        config: How images are normalized, and the classes.
        augmentation: The recipe's part.
        ema: Decay of the moving average of the weights, which is then what is scored and saved; none if not given.
        generative: Weight of iGPT's own loss beside that of the classes; 0 for the classes alone.
        shift: Float [k], added to the logits in the loss alone.
        optimization: The recipe's part.
        plan: The length of the run.
        run: Its folder.
    """

    def __init__(
        self,
        model: nn.Module,
        config: ClassifierConfig,
        augmentation: Augmentation,
        ema: float | None,
        generative: float,
        shift: Tensor,
        optimization: Optimization,
        plan: Plan,
        run: Run,
    ):
        super().__init__(optimization, plan, run)
        self.model, self.generative, self.frozen = model, generative, frozen_parts(model)
        self.register_buffer("shift", shift, persistent=False)
        self.from_logits = F.binary_cross_entropy_with_logits if config.multi_label else F.cross_entropy
        self.augment = FinetuneAugment(config.mean, config.std, len(config.classes), **asdict(augmentation))
        self.average = AveragedModel(model, multi_avg_fn=_moving_average(ema), use_buffers=True) if ema else None
        if self.average is not None:
            self.average.requires_grad_(False)  # else DDP waits for gradients that never come

    def train(self, mode: bool = True) -> "Finetuning":
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def groups(self) -> list[Group]:
        o = self.optimization
        return layer_decay_groups(self.model, o.weight_decay, o.layer_decay, o.layer_blocks)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        images, targets = self.augment(batch.images, batch.labels)
        if not self.generative:
            return {"loss": self.from_logits(self.model(images).float() + self.shift, targets)}
        logits, generative = self.model.classify_and_predict(images, batch.seeds)  # type: ignore[operator]  # ImageGPT
        classes = self.from_logits(logits.float() + self.shift, targets)
        return {"loss": classes + self.generative * generative, "class_loss": classes, "generative_loss": generative}

    def compile_model(self) -> None:
        """What each step calls."""
        if self.generative:
            self.model.classify_and_predict = torch.compile(self.model.classify_and_predict)  # type: ignore[assignment]
        else:
            self.model.compile()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update_parameters(self.model)

    def scored(self) -> nn.Module:
        """The model that counts: the average of the weights where there is one."""
        return self.model if self.average is None else self.average.module


def _moving_average(decay: float) -> Callable[..., None]:
    """torch's, but for whole numbers: an average of a table of indices would be rounded to another table."""
    average = get_ema_multi_avg_fn(decay)

    def update(averages: Any, values: Any, updates: Any) -> None:
        if averages[0].is_floating_point():  # all of one type
            average(averages, values, updates)
        else:
            for mean, value in zip(averages, values, strict=True):
                mean.copy_(value)

    return update
