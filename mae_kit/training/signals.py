"""A signal sets a flag; at the end of the step all ranks save that step together and leave with the signal's code.

Scoring between steps ends at the next batch, on all ranks, and restarts when the run resumes. Where no step ends, since
a worker, a file server or another rank is stuck, a watchdog leaves; a single process saves its last whole step before.
Several cannot: a checkpoint holds sums over all ranks, of the audit for one, and no other rank knows those of a stuck
one; so they keep the last checkpoint.
"""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from mae_kit.data.loading.batch import Batch
from mae_kit.training.progress import find, is_complete, step_is_done

log = logging.getLogger(__name__)

NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
EXIT_CODES = {signal.SIGINT: 130}
TERMINATED = 143
WAITING = 5.0  # seconds after a signal until a wait for a batch is given up
BUSY = 60.0  # seconds after a signal until a step is given up


def _numbers() -> list[signal.Signals]:
    """The signals that stop a run; not that of a closed terminal where `nohup` has it ignored."""
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    return [number for number in numbers if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN]


class Stopped(Exception):
    """A signal has come to one of the ranks."""


def _can_handle() -> bool:
    """Python lets the main thread alone handle signals; a training in another one leaves them to its program."""
    return threading.current_thread() is threading.main_thread()


class StopOnSignal(Callback):
    """Stops a run at a step boundary, the last of the callbacks. A second Ctrl-C stops it at once.

    Args:
        hint: How to resume, for the message.
        rescue: Called from another thread while no step ends: where the run waits for a batch it saves the last whole
            step, leaves by the function it is given, and does not return.
        is_saving: Whether a checkpoint is being written, which is waited for.

    Attributes:
        code: What all ranks exit with after `trainer.fit`; 0 if no signal came, or the training was over.
        between_steps: Whether all micro-batches of the last step are done.
    """

    def __init__(
        self,
        hint: str = "",
        rescue: Callable[[Callable[[], None]], None] = lambda leave: None,
        is_saving: Callable[[], bool] = lambda: False,
    ) -> None:
        self.hint, self.rescue, self.is_saving = hint, rescue, is_saving
        self.code, self.between_steps = 0, True
        self._asked = False  # of the handler, which answers a second Ctrl-C
        self._received = 0  # by this rank; apart from `code`, since a signal may come while the ranks agree on that
        self._over = threading.Event()
        self._before: dict[int, Any] = {}
        if _can_handle():
            self._before = {number: signal.signal(number, self._handle) for number in _numbers()}
            self._woken, self._waking = socket.socketpair()
            self._waking.setblocking(False)
            self._woken_before = signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._watch, daemon=True).start()

    def take(self) -> None:
        for number in self._before:
            signal.signal(number, self._handle)

    def close(self) -> None:
        """Give the signals back, and end the watchdog."""
        self._over.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            signal.set_wakeup_fd(self._woken_before)
            self._waking.close()
            self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._received and number == signal.SIGINT and self._asked:
            sys.exit(130)  # not KeyboardInterrupt, of which Lightning makes an exit with 1
        self._note(number)
        self._asked = True

    def _note(self, number: int) -> None:
        self._received = EXIT_CODES.get(signal.Signals(number), TERMINATED)

    def _watch(self) -> None:
        """Learn of a signal even where the main thread is in a collective, and calls no handler until it is over."""
        with self._woken:  # open until the end: signals are written to the other side
            while (came := self._woken.recv(1)) and came[0] not in _numbers():
                pass
            if came:
                self._note(came[0])
                self._count_down()

    def _count_down(self) -> None:
        started = time.monotonic()
        while not self._over.wait(1.0):
            passed = time.monotonic() - started
            if passed > WAITING:
                self.rescue(self._leave)
            if passed > BUSY and not self.is_saving():
                log.warning(f"no step ended within {BUSY:.0f} s of a signal; the last checkpoint is kept")
                self._leave()

    def _leave(self) -> None:
        log.info(f"stopped by a signal; {self.hint}".removesuffix("; "))
        for worker in multiprocessing.active_children():
            worker.kill()
        os._exit(self._received)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.between_steps = step_is_done(trainer, batch_idx)
        if self.between_steps and not is_complete(trainer):
            self._agree(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.code and trainer.is_global_zero:
            log.info(f"stopped by a signal after step {trainer.global_step}; {self.hint}".removesuffix("; "))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.close()

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
