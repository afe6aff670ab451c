"""A command line in a process of its own: its result, its last words, and what a signal does."""

import os
import signal
import sys
from pathlib import Path

import pytest

from mae_kit.comparison import process as command
from mae_kit.comparison.process import Failed, run_command

PROGRAM = """#!/bin/sh
case $3 in
  well) echo '{"top1": 1}'; echo 'step 1' >&2; echo >&2; echo 'step 2' >&2 ;;
  wrong) echo 'a hint' >&2; echo 'mae-kit: error: no shards at x: give others' >&2; exit 2 ;;
  broken) printf 'Traceback:\\nValueError: nan\\nmae-kit 0.1: this is our fault; please report it\\n' >&2; exit 1 ;;
  silent) exit 3 ;;
  killed) kill -9 $$ ;;
  stopped) exit 143 ;;
  long) trap 'echo saved >> "$4"; exit 143' TERM; echo started >&2; for i in $(seq 100); do sleep 0.05; done ;;
esac
"""


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell script stands for Python."""
    path = tmp_path / "python"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    monkeypatch.setattr(command.sys, "executable", str(path))


def test_its_result_and_its_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    assert run_command(["well"], tmp_path / "log") == {"top1": 1}
    assert (tmp_path / "log").read_text() == "step 1\nstep 2\n"
    assert caplog.messages == ["  step 1", "  step 2"]


@pytest.mark.parametrize(
    ("how", "last"),
    [
        ("wrong", "no shards at x: give others"),
        ("broken", "ValueError: nan"),
        ("silent", "exit code 3"),
        ("killed", "killed by signal 9"),
    ],
)
def test_its_last_words(tmp_path: Path, how: str, last: str):
    with pytest.raises(Failed) as failed:
        run_command([how], tmp_path / "log")
    assert str(failed.value) == last


def test_a_stop_is_no_failure(tmp_path: Path):
    with pytest.raises(SystemExit) as stop:
        run_command(["stopped"], tmp_path / "log")
    assert stop.value.code == 143


def test_who_is_stopped_tells_the_process_and_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command.log, "info", lambda _: sys.exit(143))
    with pytest.raises(SystemExit):
        run_command(["long", str(tmp_path / "saved")], tmp_path / "log")
    assert (tmp_path / "saved").read_text() == "saved\n"


def test_sigterm_ends_it_as_an_interrupt_does():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop, command.stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert stop.value.code == 143 and signal.getsignal(signal.SIGTERM) == before
