"""A folder in which one process at a time works."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mae_kit.errors import UserError

LOCK = ".lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The folder for this process alone: two that go on with the same work would spoil each other's.

    The system frees the lock of a process that has ended, however it ended; that of a machine which is gone, when the
    file server gives it up. Where the file system knows no locks there is none: one that is merely a file would
    outlive its process, and keep a run from going on by itself.

    Args:
        folder: Made if it is not there.

    Raises:
        UserError: Another process is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        fix = f"wait for its end, or end it; if its machine is gone, remove {lock.lock_file}"
        raise UserError("lock.alone", f"another process is at work in {folder}", fix) from None
    except OSError:
        pass
    try:
        yield
    finally:
        lock.release()
