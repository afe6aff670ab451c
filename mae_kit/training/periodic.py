"""What a training does beside its steps every so often: scores and pictures, on all ranks, until a signal comes."""

import contextlib
import logging
import time
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from mae_kit.training.best import Best
from mae_kit.training.progress import find, is_complete, step_is_done, total_steps
from mae_kit.training.record import Record, log_metrics
from mae_kit.training.run import Run
from mae_kit.training.sharded import whole
from mae_kit.training.signals import Stopped

log = logging.getLogger(__name__)


class Periodic(Callback):
    """Calls `act` on all ranks every so many steps and at the end, with the module in eval mode, without gradients.

    What a signal or a kill broke off is done first thing when the run goes on, so that its record has no gap.

    Args:
        every: Steps between two calls.
        first: Before the first step, too.
    """

    def __init__(self, every: int, first: bool = False):
        self.every, self.first = every, first

    def act(self, trainer: Trainer, pl_module: Any) -> None:
        """What is done; batches go through `until_signal`, which may break it off."""
        raise NotImplementedError

    def is_done(self, trainer: Trainer) -> bool:
        """Whether its trace at this step is there already; asked on rank 0 when a run is resumed."""
        return False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = trainer.global_step
        if (self.first or step) and step % self.every == 0:
            done = trainer.is_global_zero and self.is_done(trainer)
            if not trainer.strategy.broadcast(done):
                self._act(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = step_is_done(trainer, batch_idx) and trainer.global_step % self.every == 0
        if due and not is_complete(trainer):
            self._act(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """At the end, not where a signal stopped the run: its sender will not wait."""
        if is_complete(trainer):
            self._act(trainer, pl_module)

    def _act(self, trainer: Trainer, pl_module: LightningModule) -> None:
        started = time.perf_counter()
        pl_module.eval()
        context = trainer.precision_plugin.forward_context()
        with torch.no_grad(), context, whole(trainer), contextlib.suppress(Stopped):
            self.act(trainer, pl_module)
        pl_module.train()
        if record := find(trainer, Record):
            record.leave_out(time.perf_counter() - started)


class PeriodicScore(Periodic):
    """Scores the weights, keeps the best ones, and ends a training that gets no better, where that is asked for.

    Args:
        name: Of the score that counts, as it is logged.
        every: Steps between two scores.
        run: Says, when a run is resumed, whether the score is written already.
        best: Keeps the best weights; those before the first step do not count.
        first: Before the first step, too.
    """

    def __init__(self, name: str, every: int, run: Run | None = None, best: Best | None = None, first: bool = False):
        super().__init__(every, first)
        self.name, self.run, self.best = name, run, best

    def is_done(self, trainer: Trainer) -> bool:
        return self.run is not None and self.run.has_metric(trainer.global_step, self.name)

    def report(self, trainer: Trainer, pl_module: Any, values: dict[str, float]) -> None:
        """Log the scores, which rank 0 has, after the weights were kept: a kill between the two repeats both."""
        step, best = trainer.global_step, self.best
        if trainer.is_global_zero:
            if best and step:
                best.offer(step, self.name, values[self.name])
            log_metrics(trainer, pl_module, values)
        if best and trainer.strategy.broadcast(trainer.is_global_zero and best.is_over(step)):
            trainer.should_stop = True
            if trainer.is_global_zero:
                found, total = best.found(), total_steps(trainer)
                why = f"{self.name} has not exceeded the {found['value']:.1%} of step {found['step']}"
                log.info(f"stopping early, after step {step} of {total}: {why} {best.patience} times in a row")
