"""One process at a time: whoever comes second is refused."""

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from support.errors import raises

from mae_kit.training.lock import HOLDER, alone

HOLD = """
import sys
from pathlib import Path
from mae_kit.training.lock import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that works in the folder until its stdin ends."""
    words = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_one_is_refused_until_the_first_leaves(holder: subprocess.Popen[str], tmp_path: Path):
    with raises("run.in_use"), alone(tmp_path / "run"):
        pytest.fail("two are at work")
    assert holder.stdin
    holder.stdin.close()
    assert holder.wait() == 0
    with alone(tmp_path / "run"):
        pass


def test_a_killed_one_holds_nothing(holder: subprocess.Popen[str], tmp_path: Path):
    holder.kill()
    holder.wait()
    for _ in range(2):  # and neither does one that has left
        with alone(tmp_path / "run"):
            pass


@pytest.mark.parametrize("reason", [errno.ENOSYS, errno.ENOLCK])
def test_where_there_are_no_locks_a_file_with_the_holder_stands_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
):
    fcntl = pytest.importorskip("fcntl")

    def unknown(descriptor: int, operation: int) -> None:
        raise OSError(reason, "no locks here")

    monkeypatch.setattr(fcntl, "flock", unknown)
    (tmp_path / HOLDER).write_text("elsewhere 1")
    os.utime(tmp_path / HOLDER, (0, 0))
    with alone(tmp_path):
        assert not FileLock(tmp_path / ".lock").is_locked
        with raises("run.in_use"), alone(tmp_path):
            pytest.fail("two are at work")
    assert not (tmp_path / HOLDER).exists()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / HOLDER).write_text(f"{socket.gethostname()} {dead.pid}")
    with alone(tmp_path):
        pass
