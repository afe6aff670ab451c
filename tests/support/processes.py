"""Command lines as real processes that tests watch, interrupt and kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from support import fork_server

SECONDS = 240  # until a process counts as hung; a busy machine needs many


class Ended(NamedTuple):
    """Exit code of a process (-9 after SIGKILL) and what it printed."""

    code: int
    out: str
    err: str


class Running:
    """A running command line."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.pid = int(self._number("pid"))

    def alive(self) -> bool:
        return not (self.folder / "rc").exists()

    def printed(self) -> str:
        return (self.folder / "stdout").read_text() if (self.folder / "stdout").exists() else ""

    def send(self, number: signal.Signals) -> None:
        if self.alive():
            os.kill(self.pid, number)

    def wait(self) -> Ended:
        code = int(self._number("rc"))
        out, err = ((self.folder / name).read_text() for name in ("stdout", "stderr"))
        return Ended(code, out, err)

    def wait_until(self, seen: Callable[[], bool]) -> None:
        """Wait until the condition holds or the process ends."""
        deadline = time.monotonic() + SECONDS
        while self.alive() and not seen():
            assert time.monotonic() < deadline, (self.folder / "stderr").read_text()
            time.sleep(0.002)

    def _number(self, name: str) -> str:
        deadline = time.monotonic() + SECONDS
        while not (self.folder / name).exists():
            assert time.monotonic() < deadline, f"{name}: {[p.read_text() for p in self.folder.glob('std*')]}"
            time.sleep(0.005)
        return (self.folder / name).read_text()


class Programs:
    """Start command lines of mae-kit.

    Args:
        folder: For what they print.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        words = [sys.executable, fork_server.__file__]
        self._server = subprocess.Popen(words, stdin=subprocess.PIPE, text=True, env=environment)
        self._started: list[Running] = []

    def start(self, *words: str | Path, patch: str = "", **env: str | int) -> Running:
        """Start `mae-kit WORDS`.

        Args:
            words: The command line.
            patch: Python to run in the process before: faults to inject.
            env: Environment variables.
        """
        folder = self.folder / f"{len(self._started):04d}"
        folder.mkdir()
        job = {"words": [str(word) for word in words], "folder": str(folder), "patch": patch}
        job["env"] = {name: str(value) for name, value in env.items()}
        assert self._server.stdin
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        while not (folder / "pid").exists():
            assert self._server.poll() is None, "it could not import mae_kit: its traceback is on stderr"
            time.sleep(0.005)
        self._started.append(Running(folder))
        return self._started[-1]

    def run(self, *words: str | Path, patch: str = "", **env: str | int) -> Ended:
        return self.start(*words, patch=patch, **env).wait()

    def close(self) -> None:
        """Stop all running command lines."""
        for running in self._started:
            running.send(signal.SIGKILL)
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait()
