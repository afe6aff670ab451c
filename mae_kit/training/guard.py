"""A step whose gradient is not finite is skipped; three in a row take the weights back to the last checkpoint."""

import logging
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from mae_kit.errors import UserError
from mae_kit.training.checkpoint import load_latest
from mae_kit.training.sharded import whole_norm

log = logging.getLogger(__name__)
ROLLBACK_AFTER = 3  # steps in a row without a finite gradient
ROLLBACKS = 3
LEAST_SCALE = 1.0  # of a loss in fp16: what is not finite at this one is no overflow of scaling
COUNTS = ("skipped_steps", "skipped_in_a_row", "rollbacks", "overflows")


class SkipNonFinite(Callback):
    """Skips optimizer steps whose gradient is not finite. After an all-reduce all ranks see the same norm.

    Args:
        checkpoints: Folder of the checkpoints to go back to after three such steps in a row; without one the training
            ends there.

    Attributes:
        gradient_norm: Of the last step, before clipping.
        counts: `skipped_steps`, `skipped_in_a_row`, `rollbacks`; `overflows`, steps that fp16 left out to find its
            scale, which is no fault.

    Raises:
        UserError: Going back did not help.
    """

    def __init__(self, checkpoints: Path | None = None):
        self.checkpoints = checkpoints
        self.counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
        self.gradient_norm = torch.zeros(())
        self._loss_is_finite = torch.tensor(True)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.counts)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.counts = dict(state_dict)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        self._loss_is_finite = self._loss_is_finite.to(loss.device) & torch.isfinite(loss)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.gradient_norm = whole_norm(torch.nn.utils.clip_grad_norm_(parameters, float("inf")))
        finite, self._loss_is_finite = self._loss_is_finite, torch.tensor(True)
        if torch.isfinite(self.gradient_norm):
            self.counts["skipped_in_a_row"] = 0
            return
        if finite and _scale(trainer) > LEAST_SCALE:
            self.counts["overflows"] += 1
            return
        optimizer.zero_grad(set_to_none=True)  # an optimizer passes over parameters without a gradient
        self.counts["skipped_steps"] += 1
        self.counts["skipped_in_a_row"] += 1
        log.warning(f"step {trainer.global_step}: the loss or its gradient is not finite; the step is skipped")
        if self.counts["skipped_in_a_row"] == ROLLBACK_AFTER:
            self._roll_back(trainer)

    def _roll_back(self, trainer: Trainer) -> None:
        """Restore weights and optimizer of the last checkpoint; the data continue past the batches that did harm."""
        step = trainer.global_step
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


def _scale(trainer: Trainer) -> float:
    """What the loss is multiplied by in fp16."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler.get_scale() if scaler else LEAST_SCALE
