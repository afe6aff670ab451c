"""Files that are complete or absent, whenever the process is killed or the power fails."""

import os
import re
import secrets
import shutil
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from mae_kit.errors import UserError

MAKING = ".*.making"  # what a killed process leaves behind; whoever owns the folder may clear it away
STALE = 3600  # seconds without a write after which nobody writes to a file any more, on whatever machine
UNFINISHED = ".unfinished"  # the folder of a folder that is being filled
_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_MADE = re.compile(r"\..*\.([0-9a-f]{8})-([0-9]+)-[0-9a-f]{4}\.making", re.DOTALL)
_LONGEST = 100  # characters of a name that a hidden one repeats: those of file systems are limited
_cleared: set[tuple[int, Path]] = set()  # by this process


@contextmanager
def replacing(path: Path, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary name next to `path`; if the block succeeds, the file is flushed to the disk and renamed.

    Next to it, since a rename works within one file system only; a name that no two machines choose; and not
    by `tempfile`, whose files only their owner may read. What killed processes of this machine left unfinished in the
    folder is removed first.

    Args:
        path: The file to write or replace.
        flush: Off for what is checked when read and soon made again: whole after a kill, maybe not after a power cut.

    Raises:
        OSError: The disk is full and the like; nothing is left behind.
    """
    _clear_once(path.parent)
    making = path.with_name(f".{path.name[:_LONGEST]}.{_HOST}-{os.getpid()}-{secrets.token_hex(2)}.making")
    try:
        yield making
        if flush:
            sync(making)
        os.replace(making, path)
        if flush:
            sync_folder(path.parent)
    except OSError as error:
        if error.filename in (None, str(making)):
            error.filename = str(path)  # what the user knows
        raise
    finally:
        with suppress(OSError):  # it is renamed; or it was never made, which a read-only disk reports in its own way
            making.unlink()


def takes_files(folder: Path) -> bool:
    """Whether its permissions let files in; a folder without any write bit is left alone even by the superuser."""
    return bool(folder.stat().st_mode & 0o222) and os.access(folder, os.W_OK)


def must_take_files(folder: Path) -> None:
    """Raises UserError, before any work, where results for a folder, which need not exist yet, cannot be written."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if there.is_dir() and not takes_files(there):
        raise UserError("out.folder", f"{there} cannot be written", "choose another --out")


def replace_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, that is either the old or the new one."""
    with replacing(path) as making:
        making.write_text(text, encoding="utf-8")


def append_lines(path: Path, lines: list[str]) -> None:
    """Append lines to a UTF-8 file: all of them, or none where the disk is full."""
    append(path, "".join(line + "\n" for line in lines).encode())


def append(path: Path, data: bytes) -> None:
    """Append bytes to a file: all of them, or none.

    Raises:
        OSError: The disk is full and the like.
    """
    with open(path, "ab", buffering=0) as file:
        before = file.tell()
        try:
            written = 0
            while written < len(data):
                written += file.write(data[written:])
        except OSError as error:
            file.truncate(before)
            error.filename = str(path)
            raise


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder in `folder`, whose files move up once the block has written all of them.

    What an interrupted block has left is removed first; of the user's own files, none but those of the same names.
    """
    made, making = not folder.exists(), folder / UNFINISHED
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    try:
        yield making
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        if made:
            with suppress(OSError):  # somebody else's file is there by now
                folder.rmdir()
        raise
    for path in sorted(making.iterdir()):
        os.replace(path, folder / path.name)
    sync_folder(folder)
    making.rmdir()


def is_unfinished(folder: Path) -> bool:
    """Whether `filling` a folder was interrupted."""
    return (folder / UNFINISHED).is_dir()


def clear_unfinished(folder: Path, seconds: float = STALE) -> None:
    """Remove what killed processes have left unfinished.

    A process of another machine counts as killed once it has not written for so many `seconds`.
    """
    for stray in folder.glob(MAKING):
        with suppress(FileNotFoundError):  # finished meanwhile
            _remove_if_left(stray, seconds)


def _clear_once(folder: Path) -> None:
    """Remove what `replacing` left in a folder; another's hidden file is not touched."""
    if (os.getpid(), folder) in _cleared:
        return
    _cleared.add((os.getpid(), folder))
    for stray in folder.glob(MAKING):
        if _made_by(stray):
            with suppress(OSError):
                _remove_if_left(stray, STALE)


def _remove_if_left(stray: Path, seconds: float) -> None:
    host, process = _made_by(stray) or ("", 0)
    killed = host == _HOST and not psutil.pid_exists(process)
    if killed or time.time() - stray.stat().st_mtime >= seconds:
        stray.unlink()


def _made_by(stray: Path) -> tuple[str, int] | None:
    """Host and number of the process that `replacing` worked for."""
    found = _MADE.fullmatch(stray.name)
    return (found[1], int(found[2])) if found else None


def sync(file: Path) -> None:
    """Wait until the disk has what was written to a file."""
    with open(file, "rb+") as opened:
        os.fsync(opened.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder; Windows cannot open folders and needs no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
