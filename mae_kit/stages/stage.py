"""What a stage is: a command line, and what tells it from others of the same place."""

import hashlib
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

_OF_MACHINE = ("--machine.workers", "--machine.threads", "--machine.cache", "--machine.cache_size")


class Stage(NamedTuple):
    """One verb, whose result is kept.

    Attributes:
        words: The command line.
        prints: Fingerprints of what it reads, by name.
        folder: For its run, its log and its record.
    """

    words: list[str]
    prints: dict[str, str]
    folder: Path

    @property
    def verb(self) -> str:
        return self.words[0]

    @property
    def run(self) -> Path:
        return self.folder / self.verb

    @property
    def record(self) -> Path:
        return self.folder / f"{self.verb}.json"

    @property
    def settings(self) -> dict[str, Any]:
        """What tells it from others of the same place, wherever that place is and however it is called."""
        here = f"{self.folder.parent}{os.sep}"
        return {"words": telling([word.removeprefix(here) for word in self.words]), **self.prints}


def telling(words: list[str]) -> list[str]:
    """A command line without what changes how fast its work is done and nothing that comes of it."""
    return [word for option, word in pairwise(["", *words]) if not {option, word} & {*_OF_MACHINE}]


def digest(content: dict[str, Any]) -> str:
    """Short, of what a recipe says; its comments and its order say nothing."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
