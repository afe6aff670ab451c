"""Questions that callbacks ask of a Trainer: where it stands, and what all ranks have together."""

from typing import Any, TypeVar

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback
from torch import Tensor

AnyCallback = TypeVar("AnyCallback", bound=Callback)


def find(trainer: Trainer, kind: type[AnyCallback]) -> AnyCallback | None:
    """The first callback of a class; None where the trainer has none."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)


def micro_batch_of(trainer: Trainer, batch_idx: int) -> int:
    """The number of a micro-batch within its optimizer step."""
    return batch_idx % trainer.accumulate_grad_batches


def step_is_done(trainer: Trainer, batch_idx: int) -> bool:
    """Whether this micro-batch was the last of its optimizer step."""
    return micro_batch_of(trainer, batch_idx + 1) == 0


def total_steps(trainer: Trainer) -> int:
    """Optimizer steps of the whole training."""
    return trainer.max_steps if trainer.max_steps > 0 else int(trainer.estimated_stepping_batches)


def is_complete(trainer: Trainer) -> bool:
    """Whether the last optimizer step is done."""
    return trainer.global_step >= total_steps(trainer)


def told_epochs(epochs: float) -> str:
    """The length of a training as people read it: 800, 4.7 or 0.02 epochs."""
    return f"{round(epochs, 1 if epochs >= 1 else 3):g}"


def summed(trainer: Trainer, values: Tensor) -> Tensor:
    """The sum over all processes, each of which has to call it; on the CPU."""
    if trainer.world_size == 1:
        return values
    device = trainer.strategy.root_device
    return trainer.strategy.reduce(values.to(device, copy=True), reduce_op="sum").cpu()  # type: ignore[union-attr]
