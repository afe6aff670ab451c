"""The files below a folder: which are images by their names, and which are none."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from mae_kit.data.decode import IMAGE_SUFFIXES
from mae_kit.data.volumes import SUFFIXES
from mae_kit.errors import UserError

_OF_SYSTEMS = {"@eadir", "#recycle", "#snapshot", "@recycle", "$recycle.bin", "system volume information"}
_OF_SYSTEMS |= {"lost+found", "__macosx", "thumbs.db"}
NO_FILE = "a broken link or no regular file"


class Skip(NamedTuple):
    """A file or sample that ends in no shard, and why."""

    name: str
    reason: str


def list_images(root: Path) -> tuple[dict[str, int], list[Skip]]:
    """List the files below `root` without those whose name, or whose folder's name, begins with a dot.

    Folders that systems keep for themselves count as hidden: thumbnails of a NAS, bins, lost+found. Links to folders
    are followed.

    Returns:
        Sizes in bytes of the image files by their path relative to `root`, sorted, and the other files.

    Raises:
        UserError: A folder cannot be read.
    """
    images: dict[str, int] = {}
    others: list[Skip] = []
    start = len(os.path.join(root, ""))
    for entry in _walk(root):
        name = entry.path[start:]
        suffix = os.path.splitext(name)[1].lower()
        if suffix[1:] not in IMAGE_SUFFIXES | SUFFIXES and not name.lower().endswith(".nii.gz"):
            others.append(Skip(name, f"not the name of an image ({suffix or 'no suffix'})"))
        elif holds(entry.is_file):
            images[name] = entry.stat().st_size
        else:
            others.append(Skip(name, NO_FILE))
    return dict(sorted(images.items())), sorted(others)


def holds(is_kind: Callable[[], bool]) -> bool:
    """The answer of an entry's `is_file` or `is_dir`, which raise an error for a link to itself: it is neither."""
    try:
        return is_kind()
    except OSError:
        return False


def _walk(root: Path) -> Iterator[os.DirEntry]:
    """All entries that are no folders. Links to folders are followed, but none to a folder that it lies in."""
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [(str(root), frozenset())]
    while pending:
        folder, above = pending.pop()
        try:
            status = os.stat(folder)
            with os.scandir(folder) as found:
                entries = sorted((e for e in found if not _is_hidden(e)), key=lambda e: e.name, reverse=True)
        except OSError as error:
            raise UserError("shard.src.unreadable", f"{folder}: {error.strerror}", "make the folder readable") from None
        here = (status.st_dev, status.st_ino)
        if here in above:
            continue
        folders = [entry for entry in entries if holds(entry.is_dir)]
        pending += [(entry.path, above | {here}) for entry in folders]
        yield from (entry for entry in entries if not holds(entry.is_dir))


def _is_hidden(entry: os.DirEntry) -> bool:
    return entry.name.startswith(".") or entry.name.lower() in _OF_SYSTEMS
