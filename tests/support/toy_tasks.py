"""Tasks that record what happened to them, a file each, for the tests of parallel execution."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from mae_kit.errors import UserError

STEPS = 3


def note(folder: Path, task: str, tick: Callable[[], None]) -> None:
    """Append a line to its file, which shows a task that ran twice."""
    for _ in range(STEPS):
        tick()
    with (folder / task).open("a") as file:
        file.write(f"{task}\n")


def alone(folder: Path, task: str, tick: Callable[[], None]) -> None:
    """Fail if another task is running."""
    (folder / "busy").mkdir()
    time.sleep(0.1)
    (folder / "busy").rmdir()
    (folder / task).touch()


def fail(folder: Path, task: str, tick: Callable[[], None]) -> None:
    """Fail as `bad` once another task has started; run for minutes as any other, and take a moment to stop."""
    if task == "bad":
        while not list(folder.glob("*.begun")):
            time.sleep(0.01)
        raise UserError("toy.bad", "this is bad", "give a good one")
    (folder / f"{task}.begun").touch()
    try:
        for _ in range(6000):
            time.sleep(0.02)
            tick()
    finally:
        time.sleep(0.3)
        (folder / f"{task}.ended").touch()


def die(folder: Path, task: str, tick: Callable[[], None]) -> None:
    """Be killed as the first attempt of `bad`, as if out of memory."""
    if task == "bad" and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    note(folder, task, tick)
