"""One training step, the same for pretraining and fine-tuning: learning rate, keyed seeds, and a guard on the gradient."""

from abc import abstractmethod

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from mae_kit.console import say
from mae_kit.errors import UserError
from mae_kit.randomness import combine
from mae_kit.tensors import Batch
from mae_kit.training.checkpoint import State, load_latest
from mae_kit.training.optimizer import Group, build_optimizer
from mae_kit.training.run import Run
from mae_kit.training.schedule import learning_rate
from mae_kit.training.settings import Optimization, Plan

ROLLBACK_AFTER = 3  # steps in a row without a finite gradient
ROLLBACKS = 3


class Training(LightningModule):
    """What every training has in common. Subclasses say what the loss is and which parameters learn how fast.

    All randomness of a step (drop path, mixup, colour) comes from torch's generator, which is seeded anew at each
    step from (seed, step, rank): a resumed run needs no generator state and draws the same.

    Args:
        optimization: The recipe's part.
        plan: The length of the run.
        run: Its folder, where checkpoints are.
        resumed: The checkpoint to continue from.
    """

    def __init__(self, optimization: Optimization, plan: Plan, run: Run, resumed: State | None):
        super().__init__()
        self.optimization, self.plan, self.run = optimization, plan, run
        self.peak = optimization.peak(plan.batch_size)
        self.start = resumed["step"] if resumed else 0
        self.skipped_steps = resumed["skipped_steps"] if resumed else 0
        self.bad_samples = resumed["bad_samples"] if resumed else 0
        self.gradient_norm = torch.zeros(())
        self.logged: dict[str, Tensor] = {}  # of the last micro-batch; Lightning scales what it hands to callbacks
        self._skipped_in_a_row = 0
        self._rollbacks = 0
        self._resumed = resumed

    @abstractmethod
    def groups(self) -> list[Group]:
        """Parameter groups, each with its `lr_scale`."""

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`loss` and what else is to be logged, all scalars."""

    @property
    def step(self) -> int:
        """Optimiser steps done since the run began, over all resumptions."""
        return self.start + self.trainer.global_step

    def step_is_done(self) -> bool:
        """Whether the micro-batch that just ended was the last of its step."""
        return (self.trainer.fit_loop.batch_idx + 1) % self.trainer.accumulate_grad_batches == 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = build_optimizer(self.groups(), self.optimization.optimizer, betas=self.optimization.betas)
        if self._resumed:
            self._restore(self._resumed, optimizer)
            self._resumed = None
        return optimizer

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        torch.manual_seed(int(combine(self.plan.seed, self.step, batch_idx, self.global_rank)) % 2**63)
        rate = self.learning_rate()
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = rate * group["lr_scale"]

    def learning_rate(self) -> float:
        """The absolute rate of this step."""
        o = self.optimization
        schedule = {"peak": self.peak, "floor": o.min_learning_rate, "warmup_epochs": o.warmup_epochs}
        return learning_rate(self.plan.epoch(self.step), epochs=o.epochs, **schedule)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        if batch.bad:
            self.bad_samples += len(batch.bad)
            self.run.append("quarantine.jsonl", batch.bad)
        values = self.loss(batch)
        self.logged = {name: value.detach() for name, value in values.items()}
        return values

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip, and skip the step if the gradient is not finite; after an all-reduce all ranks see the same norm."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        limit = self.optimization.clip or float("inf")
        self.gradient_norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        if torch.isfinite(self.gradient_norm):
            self._skipped_in_a_row = 0
            return
        optimizer.zero_grad(set_to_none=True)  # an optimiser passes over parameters without a gradient
        self.skipped_steps += 1
        self._skipped_in_a_row += 1
        say(f"step {self.step}: the loss or its gradient is not finite; the step is skipped")
        if self._skipped_in_a_row == ROLLBACK_AFTER:
            self._roll_back(optimizer)

    def _roll_back(self, optimizer: torch.optim.Optimizer) -> None:
        """Weights and optimiser of the last checkpoint; the data goes on, past the batches that did the damage."""
        self._skipped_in_a_row = 0
        self._rollbacks += 1
        state = load_latest(self.run.checkpoints)
        if state is None or self._rollbacks > ROLLBACKS:
            raise UserError(
                f"the loss is not finite at step {self.step}, {ROLLBACK_AFTER} times in a row",
                "lower optimization.base_learning_rate, or give optimization.clip 1",
            )
        self._restore(state, optimizer)
        say(f"step {self.step}: back to the weights of step {state['step']}")

    def _restore(self, state: State, optimizer: torch.optim.Optimizer) -> None:
        self.load_state_dict(state["model"], strict=True)
        optimizer.load_state_dict(state["optimizer"])

    def checkpoint_state(self) -> State:
        """Everything a resumed run needs: tensors and plain values."""
        return {
            "step": self.step,
            "model": self.state_dict(),
            "optimizer": self.optimizers().optimizer.state_dict(),  # type: ignore[union-attr]
            "skipped_steps": self.skipped_steps,
            "bad_samples": self.bad_samples,
        }

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        tensors = [t.to(device, non_blocking=True) if isinstance(t, Tensor) else t for t in batch]
        return Batch(*tensors)  # type: ignore[arg-type]
