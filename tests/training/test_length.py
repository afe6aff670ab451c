"""A run that resumes with another number of epochs, and a training in a thread."""
# Also tests training/progress.py.

import logging
import signal
import threading
from dataclasses import asdict
from pathlib import Path

import pytest
from support.errors import raises
from torch import nn

from mae_kit.tasks.module import FinetuneModule
from mae_kit.training import fit
from mae_kit.training.config import Plan
from mae_kit.training.run import Run
from mae_kit.training.signals import StopOnSignal

BEFORE = Plan(100, 10, 2.0, 0, "data")


def resume(folder: Path, epochs: float, step: int) -> None:
    module = FinetuneModule(nn.Flatten(), 4, lr=1.0, mean=[0.5], std=[0.5], epochs=epochs)
    state = dict.fromkeys(fit._NEEDED) | {
        "global_step": step,
        "plan": asdict(BEFORE),
        "state_dict": module.state_dict(),
    }
    fit.check_resumable(module, Plan(100, 10, epochs, 0, "data"), state, Run(folder), False)


def test_fewer_epochs_than_done_are_refused(tmp_path: Path):
    resume(tmp_path, 1.5, 15)
    with raises("optimization.epochs"):
        resume(tmp_path, 1.0, 15)


def test_more_epochs_say_what_the_learning_rate_does(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        resume(tmp_path, 2.0, 20)
        assert not caplog.records
        resume(tmp_path, 4.0, 20)
    assert "4 epochs in place of 2" in caplog.text and "after step 20" in caplog.text


def test_a_thread_leaves_signals_to_its_program():
    before, found = signal.getsignal(signal.SIGTERM), []

    def train() -> None:
        signals = StopOnSignal()
        signals.take()
        found.append(signal.getsignal(signal.SIGTERM))
        signals.close()

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert found == [before]
