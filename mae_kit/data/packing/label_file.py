"""Labels in a table: a CSV with a line for each image file."""

import csv
import logging
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from mae_kit.errors import UserError

log = logging.getLogger(__name__)

ONE, SEVERAL = "label", "labels"
_BETWEEN = re.compile("[;|]")


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
    """Read `file,label`, one class an image, or `file,labels`, any number of them with ; or | between.

    In the first an empty field is an image without label, in the second one that shows none of the classes.

    Args:
        path: The CSV; its first line names the columns, others than these two do not count.
        root: The folder that `file` is relative to.
        images: The images in it.

    Raises:
        UserError: No such file, a column missing, a file twice, not in the folder or none of the images, no class.
    """
    lines = _read(path)
    several = SEVERAL in lines[0]
    rows: dict[str, list[str]] = {}
    for line in lines:
        name = os.path.normpath((line["file"] or "").strip())
        if name in rows:
            raise UserError(
                "label_file.read_label_file",
                f"{path} has {name} twice",
                "keep one of the lines; several classes go into one field",
            )
        rows[name] = _names(line[SEVERAL] or "") if several else [(line[ONE] or "").strip()]
    _must_be_there(path, root, list(rows), images)
    known = rows if several else {name: labels for name, labels in rows.items() if labels[0]}
    classes = sorted({label for labels in known.values() for label in labels})
    if not classes:
        raise UserError(
            "label_file.read_label_file", f"{path} names no class", f"fill in the column {SEVERAL if several else ONE}"
        )
    if without := len(images) - len(known):
        log.warning(f"{without:,} of {len(images):,} images in {root} have no label in {path}")
    return LabelFile(known, classes, several)


def _read(path: Path) -> list[dict[str, str | None]]:
    """The lines below the first, by its words."""
    if not path.is_file():
        fix = "give auto, folders, none, or a CSV file with the columns file and labels"
        raise UserError("label_file.read", f"no file of labels at {path}", fix)
    try:
        with open(path, encoding="utf-8-sig", newline="") as opened:
            lines = list(csv.DictReader(opened, restval=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            "label_file.read", f"{path} cannot be read as CSV ({error})", "save it as CSV in UTF-8"
        ) from error
    columns = set(lines[0]) if lines else set()
    if "file" not in columns or len(columns & {ONE, SEVERAL}) != 1:
        fix = f"begin it with the line file,{ONE} (one class an image) or file,{SEVERAL} (several, with ; between)"
        raise UserError("label_file.read", f"{path} has no lines under the columns file and {ONE} or {SEVERAL}", fix)
    return lines


def _names(field: str) -> list[str]:
    return sorted({name.strip() for name in _BETWEEN.split(field)} - {""})


def _must_be_there(path: Path, root: Path, names: list[str], images: Collection[str]) -> None:
    lost = [name for name in names if name not in images]
    if lost:
        fix = "correct them: names are relative to that folder"
        raise UserError(
            "label_file.there", f"{path} names {len(lost):,} files that are no images in {root}, such as {lost[0]}", fix
        )
