"""A signal sets a flag; at the end of the step all ranks save that step together and leave with the signal's code."""

import signal
import sys
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from mae_kit.console import say

NUMBERS = [signal.SIGTERM, signal.SIGINT, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]
EXIT_CODES = {signal.SIGINT: 130}
TERMINATED = 143


class Signals(Callback):
    """Stops a run at a step boundary. A second Ctrl-C stops it at once.

    Attributes:
        code: What all ranks exit with after `trainer.fit`; 0 if no signal came.
    """

    def __init__(self) -> None:
        self.code = 0
        self._received = 0  # by this rank; apart from `code`, since a signal may come while the ranks agree on that
        self._before = {number: signal.signal(number, self._handle) for number in NUMBERS}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take SIGTERM back from Lightning, whose handler talks to the other ranks out of step and may hang."""
        for number in NUMBERS:
            signal.signal(number, self._handle)

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._received and number == signal.SIGINT:
            sys.exit(130)  # not KeyboardInterrupt, of which Lightning makes an exit with 1
        self._received = EXIT_CODES.get(signal.Signals(number), TERMINATED)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not pl_module.step_is_done():  # type: ignore[operator]
            return
        self.code = self._received
        if trainer.world_size > 1:
            code = torch.tensor(self.code, device=pl_module.device)
            self.code = int(trainer.strategy.reduce(code, reduce_op="max"))
        if self.code:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stopped = self.code and pl_module.step < pl_module.plan.steps  # type: ignore[operator, union-attr]
        if stopped and trainer.is_global_zero:
            say(f"stopped by a signal after step {pl_module.step}; continue with --resume {pl_module.run.path}")  # type: ignore[attr-defined]
