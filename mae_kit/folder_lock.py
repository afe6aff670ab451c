"""A folder in which one process at a time works."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mae_kit.console import say
from mae_kit.errors import UserError

LOCK = ".lock"
PATIENCE = 15.0  # seconds: loader workers notice within five that their trainer was killed, and hold its lock till then


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The folder for this process alone: two that go on with the same work would spoil each other's.

    The system frees the lock of a process that has ended, however it ended. Where the file system knows no locks there
    is none: one that is merely a file would outlive a node that died, and keep the run from going on by itself.

    Args:
        folder: Made if it is not there.

    Raises:
        UserError: Another process is at work there, and stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, fallback_to_soft=False)
    try:
        _acquire(lock, folder)
    except Timeout:
        what = f"another process is at work in {folder}"
        raise UserError(what, "wait for its end, or end it: what it has saved stays") from None
    except OSError:
        pass
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, folder: Path) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process is at work in {folder}: waiting for its end, {PATIENCE:g} s at most")
        lock.acquire(timeout=PATIENCE)
