"""Labels in a table: a CSV with a line for each image file."""

import csv
import logging
import math
import os
import re
import unicodedata
from collections.abc import Collection, Iterator
from itertools import zip_longest
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
    table = read_table(path)
    labels = [name for name in table.columns if name in (ONE, SEVERAL)]
    if len(labels) != 1 or not table.lines:
        raise table.refusal()
    several = labels[0] == SEVERAL
    fields = {name: line[labels[0]] or "" for name, line in lines_of_images(table, root, images)}
    rows = {name: _names(field) if several else [field.strip()] for name, field in fields.items()}
    known = rows if several else {name: names for name, names in rows.items() if names[0]}
    classes = sorted({label for names in known.values() for label in names})
    if not classes:
        raise UserError("shard.labels.no_class", f"{path} names no class", f"fill in the column {labels[0]}")
    if fraction := _fraction(classes):
        what = f"the column {labels[0]} of {path} holds nothing but numbers, such as {fraction}"
        raise UserError("shard.labels.ambiguous", what, "for regression, give the column another name, such as score")
    if without := len(images) - len(known):
        log.warning(f"{without:,} of {len(images):,} images in {root} have no label in {path}")
    return LabelFile(known, classes, several)


def _anywhere(name: str) -> str:
    """A file's name as no system writes it differently: macOS takes letters apart, Windows separates by backslashes."""
    return os.path.normpath(unicodedata.normalize("NFC", name.replace("\\", "/")))


def _fraction(classes: list[str]) -> str:
    """One of them that is no integer, if all of them are numbers: quantities, no classes."""
    numbers = {name: to_number(name) for name in classes}
    fractions = [name for name, number in numbers.items() if number is not None and number % 1]
    return fractions[0] if fractions and None not in numbers.values() else ""


def to_number(field: str) -> float | None:
    """The finite number that a field holds; None if it holds something else."""
    try:
        number = float(field)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


class Table(NamedTuple):
    """A CSV with a line for each image.

    Attributes:
        path: The file.
        lines: Below the first, by its words.
        columns: The first line.
        file: The column that names images.
        separator: Of the columns.
    """

    path: Path
    lines: list[dict[str, str | None]]
    columns: list[str]
    file: str
    separator: str

    @property
    def has_classes(self) -> bool:
        return bool({ONE, SEVERAL} & set(self.columns))

    def refusal(self) -> UserError:
        named = ", ".join(self.columns)
        found = f"{len(self.lines)} lines with the columns {named}, separated by {_SEPARATORS[self.separator]}"
        fix = f"start it with the line file,{ONE} (one class per image), file,{SEVERAL} (several, separated by ;)"
        fix += " or file,NAME,... (numbers)"
        return UserError("shard.labels.columns", f"{self.path} has {found}", fix)


def read_table(path: Path) -> Table:
    """Read a CSV whose first line names the columns.

    Raises:
        UserError: `shard.labels`: there is no such file, it is no CSV, two columns have one name, a line has more
            fields than columns, or not one column names the files.
    """
    if not path.is_file():
        fix = "give auto, folders, masks, boxes, none, or a CSV file with the columns file and labels"
        raise UserError("shard.labels.missing", f"no file of labels at {path}", fix)
    try:
        with open(path, encoding="utf-8-sig", newline="") as opened:
            first = opened.readline()
            separator = max(_SEPARATORS, key=first.count)
            opened.seek(0)
            head, *rows = [*csv.reader(opened, delimiter=separator, skipinitialspace=True)] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            "shard.labels.csv", f"{path} cannot be read as CSV ({error})", "save it as CSV in UTF-8"
        ) from error
    columns = [name.strip() for name in head]
    if twice := next((name for name in columns if name and columns.count(name) > 1), ""):
        what = f"{path} has two columns {twice}"
        raise UserError("shard.labels.columns_twice", what, "give them different names, or remove one")
    if wide := next((row for row in rows if any(row[len(columns) :])), None):
        what = f"{path} has {len(columns)} columns, and more fields for {wide[0]}"
        raise UserError("shard.labels.fields", what, f"put fields with {_SEPARATORS[separator]} into quotes")
    lines: list[dict[str, str | None]] = [
        dict(zip_longest(columns, row[: len(columns)], fillvalue="")) for row in rows if row
    ]
    files = [name for name in columns if name in FILES]
    table = Table(path, lines, columns, files[0] if files else "", separator)
    if len(files) != 1:
        raise table.refusal()
    return table


def lines_of_images(table: Table, root: Path, images: Collection[str]) -> Iterator[tuple[str, dict[str, str | None]]]:
    """The lines with the names of their images, as the folder lists them.

    Raises:
        UserError: `shard.labels`: a file twice, not in the folder or none of the images.
    """
    known_as = {_anywhere(name): name for name in images}
    rows: dict[str, dict[str, str | None]] = {}
    for line in table.lines:
        name = os.path.normpath((line[table.file] or "").strip())
        name = name if name in images else known_as.get(_anywhere(name), name)
        if name in rows:
            fix = "keep one of the lines; several classes go into one field"
            raise UserError("shard.labels.twice", f"{table.path} lists {name} twice", fix)
        rows[name] = line
    _must_be_there(table.path, root, list(rows), images)
    yield from rows.items()


def _names(field: str) -> list[str]:
    return sorted({name.strip() for name in _BETWEEN.split(field)} - {""})


def _must_be_there(path: Path, root: Path, names: list[str], images: Collection[str]) -> None:
    lost = [name for name in names if name not in images]
    if lost:
        fix = "correct them: names are relative to that folder"
        what = f"{path} names {len(lost):,} files that are not images in {root}, such as {lost[0]}"
        raise UserError("shard.labels.unknown_images", what, fix)
