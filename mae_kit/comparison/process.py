"""One command line in a process of its own: what ends it does not end the others."""

import json
import logging
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


STOPPED = (130, 143)  # by a signal, after which it can go on
_OURS = "this is our fault"  # the door's last line below a traceback


class Failed(Exception):
    """A command line that has failed, in one line."""


def run_command(words: list[str], log_file: Path) -> dict[str, Any]:
    """The result of `mae-kit WORDS`; its lines are shown as they come, and kept.

    Args:
        words: The command line.
        log_file: What it says is appended here.

    Raises:
        Failed: It ended with an error, or was killed.
        SystemExit: A signal stopped it, as it would have stopped this process.
    """
    command = [sys.executable, "-m", "mae_kit", *words, "--json"]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as out,
        open(log_file, "a", encoding="utf-8") as file,
        subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True, errors="replace") as process,
    ):
        try:
            lines = _pass_on(process, file)
            process.wait()
        finally:  # stopped ourselves: it may save what it has
            process.terminate()
            process.wait()
        if process.returncode in STOPPED:
            sys.exit(process.returncode)
        if process.returncode:
            raise Failed(_last_words(process.returncode, lines))
        out.seek(0)
        return json.load(out)


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM ends this process as Ctrl-C does: the command under way is told, and saves what it has."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _pass_on(process: "subprocess.Popen[str]", log_file: Any) -> list[str]:
    assert process.stderr
    lines = []
    for line in map(str.rstrip, process.stderr):
        if line:
            print(line, file=log_file, flush=True)
            log.info(f"  {line}")
            lines.append(line)
    return lines


def _last_words(code: int, lines: list[str]) -> str:
    if code < 0:
        return f"killed by signal {-code}"
    last = next((line for line in reversed(lines) if _OURS not in line), f"exit code {code}")
    return last.removeprefix("mae-kit: error: ")
