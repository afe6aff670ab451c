"""A model in training from labels, whatever they are; a moving average of its weights where one is asked for."""

import logging
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mae_kit.training.config import Optimization
from mae_kit.training.freezing import frozen_parts
from mae_kit.training.module import TrainingModule
from mae_kit.training.optimizer import Group, layer_decay_groups, parameter_groups

log = logging.getLogger(__name__)


class SupervisedModule(TrainingModule):
    """The base of trainings from labels: what is trained, what of it stays as it is, and what is scored and saved.

    Args:
        model: What is trained; what needs no gradients stays in eval mode.
        optimization: Optimizer and learning rate.
        ema: Decay of an exponential moving average (EMA) of the weights; None for no EMA. It warms up to this value,
            see `ema_decay`.
        seed: Of everything random.
    """

    supervised = True

    def __init__(self, model: nn.Module, optimization: Optimization, ema: float | None = None, seed: int = 0):
        super().__init__(optimization, seed)
        self.model: Any = model
        self.frozen = frozen_parts(model)
        self.average = AveragedModel(model, multi_avg_fn=_moving_average(ema), use_buffers=True) if ema else None
        if self.average is not None:
            self.average.requires_grad_(False)  # else DDP waits for gradients that never come

    def groups(self) -> list[Group]:
        o = self.optimization
        return layer_decay_groups(self.model, o.weight_decay, o.layer_decay, o.layer_blocks)

    def compile_model(self) -> None:
        """Compile what each step calls."""
        self.model.compile()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update_parameters(self.model)

    def scored(self) -> nn.Module:
        """The model that counts: the average of the weights where there is one."""
        return self.model if self.average is None else self.average.module


class HeadedModule(SupervisedModule):
    """A model of a `backbone` and a head: `layer_decay` is for the backbone, the head learns at the full rate."""

    def groups(self) -> list[Group]:
        o, model = self.optimization, self.model
        backbone = layer_decay_groups(model.backbone, o.weight_decay, o.layer_decay, o.layer_blocks)
        known = {id(tensor) for tensor in model.backbone.parameters()}
        head = {n.replace(".", "/"): tensor for n, tensor in model.named_parameters() if id(tensor) not in known}
        return backbone + (parameter_groups(nn.ParameterDict(head), o.weight_decay) if head else [])


def ema_decay(decay: float, updates: int) -> float:
    """The decay after so many updates: a warm-up, (1 + n) / (10 + n), or a short run would stay where it began.

    As TensorFlow's ExponentialMovingAverage with num_updates.
    """
    return min(decay, (1 + updates) / (10 + updates))


def log_decay(decay: float | None, steps: int) -> None:
    """Say which decay a training of so many steps comes to, where that is less than was asked for."""
    if decay and (last := ema_decay(decay, steps)) < decay:
        log.info(
            f"the decay of the moving average warms up: it reaches {last:.3g} in {steps} steps, not the {decay:g} given"
        )


def _moving_average(decay: float) -> Callable[..., None]:
    """torch's, but for whole numbers: an average of a table of indices would be rounded to another table."""

    def update(averages: Any, values: Any, updates: Any) -> None:
        if averages[0].is_floating_point():  # all of one type
            get_ema_multi_avg_fn(ema_decay(decay, int(updates)))(averages, values, updates)
        else:
            for mean, value in zip(averages, values, strict=True):
                mean.copy_(value)

    return update
