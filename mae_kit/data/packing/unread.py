"""Files that speak of images and are not read: tables, and texts of other programs with the name of an image."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

_TABLES = {".csv", ".tsv", ".txt"}
_TEXTS = {".txt", ".json", ".xml", ".csv", ".mat"}
_CELLS = re.compile(r"[,;\t ]")
_LINES, _BYTES = 50, 1 << 16  # that are looked at
_SHORTEST = 5  # letters of a stem that is no number of a row or class


def find_unread(root: Path, images: list[str], others: Iterable[str]) -> str:
    """Name the files that describe the images of a folder without labels; empty if there are none.

    Args:
        root: The folder.
        images: Names of its images, relative to it.
        others: Names of its other files.
    """
    stems = {Path(name).stem for name in images}
    beside = [name for name in others if Path(name).suffix.lower() in _TEXTS and Path(name).stem in stems]
    suffix, count = max(Counter(Path(name).suffix for name in beside).items(), key=lambda of: of[1], default=("", 0))
    if count > len(images) / 2:
        first = next(name for name in beside if name.endswith(suffix))
        return f"{count:,} files like {first} are of a kind that is not read"
    known = {stem for stem in stems if len(stem) >= _SHORTEST} | {os.path.basename(name) for name in images}
    tables = (name for name in others if Path(name).suffix.lower() in _TABLES)
    table = next((name for name in tables if _names_images(root / name, known)), "")
    return f"{table} names images; a table is read with --labels" if table else ""


def _names_images(file: Path, known: set[str]) -> bool:
    """Whether half of the first lines, or more, name an image."""
    try:
        with file.open("rb") as opened:
            lines = opened.read(_BYTES).decode("utf-8", "replace").splitlines()[:_LINES]
    except OSError:
        return False
    cells = ([os.path.basename(cell.strip(" \"'")) for cell in _CELLS.split(line)] for line in lines)
    return sum(not known.isdisjoint(row) for row in cells) >= max(len(lines) / 2, 1)
