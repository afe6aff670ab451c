"""Names of classes, made unique: results are stored by them."""

from collections.abc import Sequence
from pathlib import Path

from mae_kit.errors import UserError

FILE = "classes.txt"


def read_classes(base: Path) -> list[str] | None:
    """Read `classes.txt` next to shards, line k names label k; None without that file.

    Raises:
        UserError: It is not text in UTF-8.
    """
    path = base / FILE
    if not path.is_file():
        return None
    try:
        text = path.read_text("utf-8-sig").rstrip()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # as UTF-16 has
        raise UserError("data.classes.utf8", f"{path} is not text in UTF-8", "save it as UTF-8")
    return kept_apart([line.strip() for line in text.split("\n")]) if text else None


def kept_apart(names: Sequence[str]) -> list[str]:
    """The names, a number behind each that was there before: ImageNet has two classes `crane`.

    The first of a name keeps it, and names that are kept apart already stay as they are.
    """
    taken = set(names)
    found: set[str] = set()
    apart = []
    for name in names:
        number, own = 1, name
        while own in found or (number > 1 and own in taken):
            number += 1
            own = f"{name} ({number})"
        found.add(own)
        apart.append(own)
    return apart
