"""Labels in a table: a CSV with a line for each image file."""

import csv
import logging
import os
import re
import unicodedata
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from mae_kit.errors import UserError

log = logging.getLogger(__name__)

ONE, SEVERAL = "label", "labels"
FILES = ("file", "file_name", "filename", "path")
_BETWEEN = re.compile("[;|]")
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


class LabelFile(NamedTuple):
    """What a CSV says of images.

    Attributes:
        rows: By the file's name, as the folder lists it, the names of its classes.
        classes: All names, sorted.
        several: Whether an image may have any number of classes; else it has one.
    """

    rows: dict[str, list[str]]
    classes: list[str]
    several: bool


def read_label_file(path: Path, root: Path, images: Collection[str]) -> LabelFile:
    """Read a table with a line for each image: `file,label`, one class each, or `file,labels`, with ; or | between.

    In the first an empty field is an image without label, in the second one that shows none of the classes. Columns may
    be separated by commas, semicolons or tabs.

    Args:
        path: The table; its first line names the columns, others than these two do not count.
        root: The folder that file names are relative to.
        images: The images in it.

    Raises:
        UserError: `shard.labels`: no such file, a column missing, a file twice, not in the folder or none of the
            images, no class.
    """
    table = _read(path)
    known_as = {_anywhere(name): name for name in images}
    rows: dict[str, list[str]] = {}
    for line in table.lines:
        name = os.path.normpath((line[table.file] or "").strip())
        name = name if name in images else known_as.get(_anywhere(name), name)
        if name in rows:
            fix = "keep one of the lines; several classes go into one field"
            raise UserError("shard.labels.twice", f"{path} lists {name} twice", fix)
        field = line[table.label] or ""
        rows[name] = _names(field) if table.several else [field.strip()]
    _must_be_there(path, root, list(rows), images)
    known = rows if table.several else {name: labels for name, labels in rows.items() if labels[0]}
    classes = sorted({label for labels in known.values() for label in labels})
    if not classes:
        raise UserError("shard.labels.no_class", f"{path} names no class", f"fill in the column {table.label}")
    if without := len(images) - len(known):
        log.warning(f"{without:,} of {len(images):,} images in {root} have no label in {path}")
    return LabelFile(known, classes, table.several)


def _anywhere(name: str) -> str:
    """A file's name as no system writes it differently: macOS takes letters apart, Windows separates by backslashes."""
    return os.path.normpath(unicodedata.normalize("NFC", name.replace("\\", "/")))


class _Table(NamedTuple):
    lines: list[dict[str, str | None]]
    file: str
    label: str
    several: bool


def _read(path: Path) -> _Table:
    """The lines below the first, by its words."""
    if not path.is_file():
        fix = "give auto, folders, none, or a CSV file with the columns file and labels"
        raise UserError("shard.labels.missing", f"no file of labels at {path}", fix)
    try:
        with open(path, encoding="utf-8-sig", newline="") as opened:
            first = opened.readline()
            separator = max(_SEPARATORS, key=first.count)
            opened.seek(0)
            reader = csv.DictReader(opened, restval="", delimiter=separator)
            lines, columns = list(reader), list(reader.fieldnames or ())
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            "shard.labels.csv", f"{path} cannot be read as CSV ({error})", "save it as CSV in UTF-8"
        ) from error
    files = [name for name in columns if name in FILES]
    labels = [name for name in columns if name in (ONE, SEVERAL)]
    if len(files) != 1 or len(labels) != 1 or not lines:
        found = f"{len(lines)} lines with the columns {', '.join(columns)}, separated by {_SEPARATORS[separator]}"
        fix = f"start it with the line file,{ONE} (one class per image) or file,{SEVERAL} (several, separated by ;)"
        raise UserError("shard.labels.columns", f"{path} has {found}", fix)
    return _Table(lines, files[0], labels[0], labels[0] == SEVERAL)


def _names(field: str) -> list[str]:
    return sorted({name.strip() for name in _BETWEEN.split(field)} - {""})


def _must_be_there(path: Path, root: Path, names: list[str], images: Collection[str]) -> None:
    lost = [name for name in names if name not in images]
    if lost:
        fix = "correct them: names are relative to that folder"
        what = f"{path} names {len(lost):,} files that are not images in {root}, such as {lost[0]}"
        raise UserError("shard.labels.unknown_images", what, fix)
