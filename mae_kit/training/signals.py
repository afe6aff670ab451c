"""A signal sets a flag; at the end of the step all ranks save that step together and leave with the signal's code.

Scoring between steps ends at the next batch, on all ranks, and restarts when the run resumes.
"""

import logging
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from mae_kit.tensors import Batch
from mae_kit.training.progress import find, is_complete, step_is_done

log = logging.getLogger(__name__)

NUMBERS = [signal.SIGTERM, signal.SIGINT, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]
EXIT_CODES = {signal.SIGINT: 130}
TERMINATED = 143


class Stopped(Exception):
    """A signal has come to one of the ranks."""


def _can_handle() -> bool:
    """Python lets the main thread alone handle signals; a training in another one leaves them to its program."""
    return threading.current_thread() is threading.main_thread()


class StopOnSignal(Callback):
    """Stops a run at a step boundary, the last of the callbacks. A second Ctrl-C stops it at once.

    Args:
        hint: How to resume, for the message.

    Attributes:
        code: What all ranks exit with after `trainer.fit`; 0 if no signal came, or the training was over.
    """

    def __init__(self, hint: str = "") -> None:
        self.hint = hint
        self.code = 0
        self._received = 0  # by this rank; apart from `code`, since a signal may come while the ranks agree on that
        self._before = {number: signal.signal(number, self._handle) for number in NUMBERS} if _can_handle() else {}

    def take(self) -> None:
        for number in self._before:
            signal.signal(number, self._handle)

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._received and number == signal.SIGINT:
            sys.exit(130)  # not KeyboardInterrupt, of which Lightning makes an exit with 1
        self._received = EXIT_CODES.get(signal.Signals(number), TERMINATED)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if step_is_done(trainer, batch_idx) and not is_complete(trainer):
            self._agree(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.code and trainer.is_global_zero:
            log.info(f"stopped by a signal after step {trainer.global_step}; {self.hint}".removesuffix("; "))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.restore()

    def batches(self, trainer: Trainer, batches: Iterable[Batch]) -> Iterator[Batch]:
        """This rank's batches; all ranks go through theirs together, though some may have fewer.

        Raises:
            Stopped: A signal has come to any rank.
        """
        remaining = iter(batches)
        while True:
            batch = next(remaining, None)
            if not self._agree(trainer, batch is not None):
                return
            if self.code:
                raise Stopped
            if batch is not None:
                yield batch

    def _agree(self, trainer: Trainer, more: bool = False) -> bool:
        """Exchange the signals that have come to any rank; whether any has `more`."""
        flags = torch.tensor([self._received, more])
        if trainer.world_size > 1:
            flags = trainer.strategy.reduce(flags.to(trainer.strategy.root_device), reduce_op="max")
        self.code, more_anywhere = map(int, flags)  # type: ignore[union-attr]
        if self.code:
            trainer.should_stop = True
        return more_anywhere > 0


class TakeBack(Callback):
    """Takes SIGTERM back from Lightning, whose handler talks to the other ranks out of step and may hang.

    The first of the callbacks: others go through batches with the other ranks before the first step.

    Args:
        signals: Whose they are.
    """

    def __init__(self, signals: StopOnSignal):
        self.signals = signals

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.signals.take()


def until_signal(trainer: Trainer, pl_module: Any, batches: Iterable[Batch]) -> Iterator[Batch]:
    """This rank's batches on the device, until a signal comes to any rank where a `StopOnSignal` looks out for one.

    Raises:
        Stopped: One has come.
    """
    signals = find(trainer, StopOnSignal)
    for batch in signals.batches(trainer, batches) if signals else batches:
        yield pl_module.transfer_batch_to_device(batch, pl_module.device, 0)
