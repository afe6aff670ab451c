"""Files that are complete or absent, whenever the process is killed or the power fails."""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAKING = ".*.making"  # what a killed process leaves behind; whoever owns the folder may clear it away
STALE = 3600  # seconds without a write after which nobody writes to a file any more, on whatever machine


@contextmanager
def replacing(path: Path, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary name next to `path`; if the block succeeds, the file is flushed to the disk and renamed.

    Next to it, since a rename works within one file system only; a name that no two machines choose; and not
    by `tempfile`, whose files only their owner may read.

    Args:
        path: The file to write or replace.
        flush: Off for what is checked when read and soon made again: whole after a kill, maybe not after a power cut.

    Raises:
        OSError: The disk is full and the like; nothing is left behind.
    """
    making = path.with_name(f".{path.name}.{secrets.token_hex(4)}.making")
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
        making.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, that is either the old or the new one."""
    with replacing(path) as making:
        making.write_text(text, encoding="utf-8")


def append_lines(path: Path, lines: list[str]) -> None:
    """Append whole lines to a UTF-8 file."""
    with open(path, "a", encoding="utf-8") as file:
        file.write("".join(line + "\n" for line in lines))


def clear_unfinished(folder: Path, seconds: float = STALE) -> None:
    """Remove what killed processes have left; what was written to lately may be another process's at work."""
    for stray in folder.glob(MAKING):
        with suppress(FileNotFoundError):  # finished meanwhile
            if time.time() - stray.stat().st_mtime >= seconds:
                stray.unlink()


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
