"""A bounded folder of this machine for files that come over the network, shared by all of its processes.

A file is there whole or not at all; one process at a time fetches it; those that were used longest ago make room. What
a killed process left half-fetched is cleared away when somebody needs room. No process keeps a file open, so that one
that made room has made it. Other files in the folder are neither counted nor touched.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from mae_kit.errors import UserError
from mae_kit.files.durable import MAKING, replacing
from mae_kit.files.user_cache import user_cache

GIGABYTE = 10**9
READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0)
_WAIT = 0.05  # seconds until a full folder is looked at again
_NAME = re.compile(r"[0-9a-f]{16}-([0-9]+)")


def _default_folder() -> Path:
    return user_cache() / "shards"


@dataclass(frozen=True)
class Cache:
    """Files by name: 16 hexadecimal digits and "-BYTES", the room that the file takes, also while it is being fetched.

    Args:
        folder: Made on first use.
        size: Most bytes of files in it.
    """

    folder: Path = field(default_factory=_default_folder)
    size: int = 20 * GIGABYTE

    def open(self, name: str, fetch: Callable[[Path], None]) -> int:
        """A descriptor of the file, which counts as used now; fetched before if it is not there.

        Args:
            name: Of the file.
            fetch: Writes the file to a path.

        Raises:
            UserError: The folder has no room, or cannot be written.
        """
        path = self.folder / name
        while True:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.utime(path)  # and still, its room may be needed before it is opened
                return os.open(path, READ_ONLY)
            self.fetch(name, fetch)

    def fetch(self, name: str, fetch: Callable[[Path], None], wait: bool = True) -> None:
        """See that the file is there.

        Args:
            name: Of the file.
            fetch: Writes the file to a path.
            wait: Whether to wait for a process that is fetching it.

        Raises:
            UserError: The folder has no room, or cannot be written.
        """
        path = self.folder / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock(name, wait):
                if not path.exists():
                    with replacing(path) as making:
                        self._reserve(making, _bytes(name))
                        fetch(making)
        except Timeout:
            return
        except OSError as error:
            what = f"a file cannot be stored in the cache {self.folder} ({error.strerror})"
            raise UserError(
                "machine.cache.disk", what, "free some space there, or choose another --machine.cache"
            ) from None

    def _lock(self, name: str, wait: bool) -> FileLock:
        """One of a limited number of lock files; two names with the same lock only wait for each other."""
        return FileLock(self.folder / f".{name[:2]}.lock", timeout=-1 if wait else 0)

    def _reserve(self, making: Path, size: int) -> None:
        """Begin a file once there is room for it."""
        if size > self.size:
            what = f"a file of {size / GIGABYTE:.3g} GB does not fit into the cache of {self.size / GIGABYTE:.3g} GB"
            raise UserError("machine.cache.size", what, f"give --machine.cache_size {size / GIGABYTE:.3g} or more")
        while True:
            with FileLock(self.folder / ".room.lock"):
                if self._make_room(size):
                    making.touch()
                    return
            time.sleep(_WAIT)

    def _make_room(self, size: int) -> bool:
        """Delete the files that were used longest ago until `size` bytes are free; False if they do not become so."""
        self._clear()
        unfinished = sum(_bytes(_made(making)) for making in self._unfinished())
        files = sorted(self._files(), key=lambda path: path.stat().st_mtime_ns)
        free = self.size - unfinished - sum(_bytes(path.name) for path in files)
        for path in files:
            if free >= size:
                break
            with contextlib.suppress(PermissionError):  # Windows keeps what is being read
                path.unlink()
                free += _bytes(path.name)
        return free >= size

    def _clear(self) -> None:
        """Delete what killed processes were fetching: nobody holds the lock of their files."""
        for making in self._unfinished():
            with contextlib.suppress(Timeout), self._lock(_made(making), wait=False):
                making.unlink(missing_ok=True)

    def _unfinished(self) -> Iterator[Path]:
        return (path for path in self.folder.glob(MAKING) if _NAME.fullmatch(_made(path)))

    def _files(self) -> Iterator[Path]:
        return (path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))


def _made(making: Path) -> str:
    """The name of the file that this one becomes."""
    return making.name.split(".")[1]


def _bytes(name: str) -> int:
    return int(name.rpartition("-")[2])
