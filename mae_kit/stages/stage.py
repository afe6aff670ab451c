"""What a stage is: a command line, and what tells it from others of the same place."""

import hashlib
from pathlib import Path
from typing import NamedTuple


class Stage(NamedTuple):
    """One verb, whose result is kept.

    Attributes:
        words: The command line.
        recipe: Digest of its recipe's text.
        prints: Fingerprints of what it reads, by name.
        folder: For its run, its log and its record.
    """

    words: list[str]
    recipe: str
    prints: dict[str, str]
    folder: Path

    @property
    def verb(self) -> str:
        return self.words[0]

    @property
    def run(self) -> Path:
        return self.folder / self.verb


def digest(text: str) -> str:
    """Short, of a recipe."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
