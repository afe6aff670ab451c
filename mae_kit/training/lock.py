"""A folder in which one process at a time works."""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from mae_kit.errors import UserError

log = logging.getLogger(__name__)

LOCK, HOLDER = ".lock", ".lock.holder"
BEAT = 20  # seconds between two signs of life
DEAD = 180  # seconds without one after which the holder counts as gone


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The folder for this process alone: two that go on with the same work would spoil each other's.

    The system frees the lock of a process that has ended, however it ended; that of a machine which is gone, when the
    file server gives it up. Where the file system knows no locks, a file with the holder's machine and process stands
    for one: it counts for nothing once its process is dead, or has not touched it for minutes.

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
        raise _taken(folder, Path(lock.lock_file)) from None
    except OSError as error:
        log.warning(f"{folder} is on a file system without locks ({error.strerror}): the file {HOLDER} serves as one")
        with _held(folder / HOLDER):
            yield
        return
    try:
        yield
    finally:
        lock.release()


def _taken(folder: Path, file: Path) -> UserError:
    fix = f"wait until it ends, or stop it; if its machine is gone, remove {file}"
    return UserError("run.in_use", f"another process is using {folder}", fix)


@contextmanager
def _held(file: Path) -> Iterator[None]:
    """Hold a file that names this process, and touch it now and then."""
    if file.exists() and _is_left(file):
        file.unlink(missing_ok=True)
    try:
        with open(file, "x", encoding="utf-8") as opened:
            opened.write(f"{socket.gethostname()} {os.getpid()}")
    except FileExistsError:
        raise _taken(file.parent, file) from None
    over = threading.Event()
    threading.Thread(target=_beat, args=(file, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        file.unlink(missing_ok=True)


def _beat(file: Path, over: threading.Event) -> None:
    while not over.wait(BEAT):
        with suppress(OSError):
            os.utime(file)


def _is_left(file: Path) -> bool:
    host, _, process = file.read_text("utf-8", errors="replace").rpartition(" ")
    if host == socket.gethostname() and process.isdecimal() and not psutil.pid_exists(int(process)):
        return True
    return time.time() - file.stat().st_mtime > DEAD
