"""A step whose gradient is not finite is skipped; three in a row take the weights back to the last checkpoint."""

import logging
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from mae_kit.errors import UserError
from mae_kit.training.checkpoint import load_latest
from mae_kit.training.sharded import Sharded, whole_norm

log = logging.getLogger(__name__)
ROLLBACK_AFTER = 3  # steps in a row without a finite gradient
ROLLBACKS = 3
LEAST_SCALE = 1.0  # of a loss in fp16: what is not finite at this one is no overflow of scaling
COUNTS = ("skipped_steps", "skipped_in_a_row", "rollbacks", "overflows")


class SkipNonFinite(Callback):
    """Skips optimizer steps whose gradient is not finite. After an all-reduce all ranks see the same norm.

    On a GPU a fused optimizer skips them by itself: the norm is read while the next step is computed, so that the GPU
    need not wait for its host.

    Args:
        checkpoints: Folder of the checkpoints to go back to after three such steps in a row; without one the training
            ends there.

    Attributes:
        gradient_norm: Of the last step, before clipping.
        counts: `skipped_steps`, `skipped_in_a_row`, `rollbacks`; `overflows`, steps that fp16 left out to find its
            scale, which is no fault. Up to the last step that is settled.

    Raises:
        UserError: Going back did not help.
    """

    def __init__(self, checkpoints: Path | None = None):
        self.checkpoints = checkpoints
        self.counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
        self.gradient_norm = torch.zeros(())
        self._loss_is_finite: torch.Tensor | None = None
        self._unsettled: _Step | None = None

    def state_dict(self) -> dict[str, Any]:
        return dict(self.counts)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.counts = dict(state_dict)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        finite = torch.isfinite(loss)
        self._loss_is_finite = finite if self._loss_is_finite is None else self._loss_is_finite & finite

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.gradient_norm = whole_norm(torch.nn.utils.clip_grad_norm_(parameters, float("inf")))
        loss_is_finite, self._loss_is_finite = self._loss_is_finite, None
        if skips_by_itself(optimizer, self.gradient_norm, trainer):
            optimizer.found_inf = (~self.gradient_norm.isfinite()).float()  # type: ignore[attr-defined]
            self.settle(trainer, optimizer)
            self._unsettled = _Step(self.gradient_norm, trainer.global_step)
        elif torch.isfinite(self.gradient_norm):
            self.counts["skipped_in_a_row"] = 0
        elif loss_is_finite and _scale(trainer) > LEAST_SCALE:
            self.counts["overflows"] += 1
        else:
            optimizer.zero_grad(set_to_none=True)  # an optimizer passes over parameters without a gradient
            self._count(trainer, trainer.global_step)

    def settle(self, trainer: Trainer, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Count the last step, if its norm has not been read.

        Args:
            trainer: Whose step it is.
            optimizer: Whose next gradient is there, which is of no use once the weights go back.
        """
        step, self._unsettled = self._unsettled, None
        if step is None:
            return
        if step.is_finite():
            self.counts["skipped_in_a_row"] = 0
        elif self._count(trainer, step.number) and optimizer is not None:
            optimizer.found_inf.fill_(1.0)  # type: ignore[attr-defined]
            self.counts["skipped_steps"] += 1
            log.warning(f"step {step.number + 1}: its gradient was computed before the rollback; the step is skipped")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.settle(trainer)

    def _count(self, trainer: Trainer, step: int) -> bool:
        """Count a step that was skipped; whether it has taken the weights back."""
        self.counts["skipped_steps"] += 1
        self.counts["skipped_in_a_row"] += 1
        log.warning(f"step {step}: the loss or its gradient is not finite; the step is skipped")
        if self.counts["skipped_in_a_row"] < ROLLBACK_AFTER:
            return False
        self._roll_back(trainer, step)
        return True

    def _roll_back(self, trainer: Trainer, step: int) -> None:
        """Restore weights and optimizer of the last checkpoint; the data continue past the batches that did harm."""
        self.counts["skipped_in_a_row"] = 0
        self.counts["rollbacks"] += 1
        state = load_latest(self.checkpoints) if self.checkpoints else None
        if state is None or self.counts["rollbacks"] > ROLLBACKS:
            raise UserError(
                "training.not_finite",
                f"the loss is not finite at step {step}, {ROLLBACK_AFTER} times in a row",
                "lower optimization.base_learning_rate, or set optimization.clip to 1",
            )
        trainer.strategy.load_model_state_dict(state, strict=True)
        trainer.strategy.load_optimizer_state_dict(state)
        log.warning(f"step {step}: back to the weights of step {state['global_step']}")


class _Step:
    """A step whose norm is on its way to the host.

    Args:
        norm: On its device.
        number: Steps before it.
    """

    def __init__(self, norm: torch.Tensor, number: int):
        self.number, self._norm, self._arrived = number, norm.to("cpu", non_blocking=True), None
        if norm.is_cuda:
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def is_finite(self) -> bool:
        """Wait for the norm, and judge it."""
        if self._arrived:
            self._arrived.synchronize()
        return bool(torch.isfinite(self._norm))


def skips_by_itself(optimizer: torch.optim.Optimizer, norm: torch.Tensor, trainer: Trainer) -> bool:
    """Whether an optimizer skips a step by what it finds on its GPU; a scaler of fp16 has its own way."""
    fused = optimizer.defaults.get("fused") and not isinstance(trainer.strategy, Sharded)
    return bool(fused) and norm.is_cuda and getattr(trainer.precision_plugin, "scaler", None) is None


def _scale(trainer: Trainer) -> float:
    """What the loss is multiplied by in fp16."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler.get_scale() if scaler else LEAST_SCALE
