"""How fast a training is on this machine, measured in its first seconds."""

import time
from copy import deepcopy
from dataclasses import replace
from typing import Any, NamedTuple

import psutil
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback

from mae_kit.data.loading.loader import TrainBatches
from mae_kit.errors import UserError
from mae_kit.training.config import Machine, Plan
from mae_kit.training.fit import fit_quietly
from mae_kit.training.module import TrainingModule

SECONDS = 8.0
WARM_UP, TIMED = 3, 3  # batches, at least


class Pace(NamedTuple):
    """The cost of a training.

    Attributes:
        images_per_second: Over steps as they will be, data loading included.
        megabytes: Memory of the GPU at its largest, or of this process.
    """

    images_per_second: float
    megabytes: float


def measure_pace(module: TrainingModule, batches: TrainBatches, plan: Plan, machine: Machine) -> Pace:
    """Train a copy for some seconds.

    Args:
        module: What will be trained; it is left as it is.
        batches: Of the training.
        plan: Of the training.
        machine: Where and how it is computed.

    Raises:
        UserError: `minutes`: the training is of several processes.
    """
    if batches.replica.world_size > 1:
        raise UserError("minutes", "the speed of several processes cannot be measured beforehand", "give --epochs")
    watch = _Stopwatch()
    endless = replace(plan, epochs=max(plan.epochs, 1e6 * plan.batch_size / plan.samples))
    fit_quietly(deepcopy(module), batches, endless, machine, machine.loader_workers(), [watch])
    return Pace(watch.images / watch.seconds, _megabytes())


class _Stopwatch(Callback):
    """Counts images and seconds behind the warm-up, and ends the training."""

    def __init__(self) -> None:
        self.images, self.seconds, self._start = 0, 0.0, 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx + 1 == WARM_UP:
            self._start = time.perf_counter()
        elif batch_idx >= WARM_UP:
            self.images += len(batch.images)
            self.seconds = time.perf_counter() - self._start
            trainer.should_stop = self.seconds >= SECONDS and batch_idx + 1 >= WARM_UP + TIMED


def _megabytes() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return psutil.Process().memory_info().rss / 1e6
