"""Command lines as real processes that tests watch, interrupt and kill."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from support import fork_server

SECONDS = 600  # until a process counts as hung; a busy machine needs many
FORKED_PYTHON = """#!{python} -IS
import sys
sys.path.insert(0, {folder!r})
from forked_python import main
main({address!r})
"""


class Ended(NamedTuple):
    """Exit code of a process (-9 after SIGKILL), what it printed, and the key of the user's mistake that ended it."""

    code: int
    out: str
    err: str
    key: str


class Running:
    """A running command line.

    Args:
        server: The fork server, which has been given the job.
        folder: With its stdout and stderr.
    """

    def __init__(self, server: socket.socket, folder: Path):
        self.folder = folder
        self._server, self._replies = server, server.makefile()
        self._code: int | None = None
        self.pid = self._number()

    def alive(self) -> bool:
        return self._code is None and not select.select([self._server], [], [], 0)[0]

    def printed(self) -> str:
        return (self.folder / "stdout").read_text()

    def send(self, number: signal.Signals) -> None:
        if self.alive():
            os.kill(self.pid, number)

    def wait(self) -> Ended:
        if self._code is None:
            self._code = self._number()
        key = self.folder / "key"
        return Ended(self._code, self.printed(), self._complaints(), key.read_text() if key.is_file() else "")

    def wait_until(self, seen: Callable[[], bool]) -> None:
        """Wait until the condition holds or the process ends."""
        deadline = time.monotonic() + SECONDS
        while self.alive() and not seen():
            assert time.monotonic() < deadline, self._complaints()
            time.sleep(0.002)

    def close(self) -> None:
        """Leave it, which kills it."""
        self._replies.close()
        self._server.close()

    def _complaints(self) -> str:
        return (self.folder / "stderr").read_text()

    def _number(self) -> int:
        assert select.select([self._server], [], [], SECONDS)[0], self.printed() + self._complaints()
        return int(self._replies.readline())


class Programs:
    """Start command lines of mae-kit.

    Args:
        folder: For what they print.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._address = str(folder / "socket")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.python = folder / "python"
        """A program that runs a module, a line of code or a script as Python does, without the imports."""
        words = [sys.executable, fork_server.__file__, self._address, self.python]
        self._server = subprocess.Popen(words, stdin=subprocess.PIPE, env=environment)
        self._started: list[Running] = []
        text = FORKED_PYTHON.format(python=sys.executable, folder=str(Path(__file__).parent), address=self._address)
        self.python.write_text(text)
        self.python.chmod(0o755)
        while not Path(self._address).exists():
            assert self._server.poll() is None, "it could not import mae_kit: its traceback is on stderr"
            time.sleep(0.01)

    def start(
        self, *words: str | Path, module: str = "mae_kit", patch: str = "", folder: Path | None = None, **env: str | int
    ) -> Running:
        """Start `mae-kit WORDS`.

        Args:
            words: The command line.
            module: Another one to run with these words.
            patch: Python to run in the process before: faults to inject.
            folder: The working directory; that of the tests by default.
            env: Environment variables.
        """
        output = self.folder / f"{len(self._started):04d}"
        output.mkdir()
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        job = {"words": ["-m", module, *map(str, words)], "folder": str(folder or Path.cwd()), "patch": patch}
        job["key"] = str(output / "key")
        job["env"] = os.environ | threads | {name: str(value) for name, value in env.items()}
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._address)
        with open(os.devnull) as stdin, open(output / "stdout", "w") as out, open(output / "stderr", "w") as err:
            socket.send_fds(server, [b"\0"], [stdin.fileno(), out.fileno(), err.fileno()])
        server.sendall(f"{json.dumps(job)}\n".encode())
        self._started.append(Running(server, output))
        return self._started[-1]

    def run(self, *words: str | Path, **how: Any) -> Ended:
        """Start `mae-kit WORDS`, as `start` does, and wait for its end."""
        return self.start(*words, **how).wait()

    def close(self) -> None:
        """Stop all running command lines, and the server: its stdin need not end, which forked processes hold open."""
        for running in self._started:
            running.close()
        self._server.kill()
        self._server.communicate()  # closes its stdin, too
