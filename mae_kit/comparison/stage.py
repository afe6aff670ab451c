"""What a stage is: a command line, and what tells it from others of the same place."""

import hashlib
import json
import os
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

_OF_MACHINE = ("--machine.num_workers", "--machine.threads", "--machine.cache", "--machine.cache_size")


class Stage(NamedTuple):
    """One verb, whose result is kept.

    Attributes:
        words: The command line.
        prints: Fingerprints of what it reads, by name.
        folder: For its run, its log and its record.
        places: Options that say where that lies: it is the same elsewhere.
    """

    words: list[str]
    prints: dict[str, str]
    folder: Path
    places: tuple[str, ...] = ()

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
        return {"words": self.telling([word.removeprefix(here) for word in self.words]), **self.prints}

    @property
    def going_on(self) -> list[str]:
        """The command line that goes on with it, on this machine and with what it reads where that lies now."""
        here = [each for each in pairwise(self.words) if each[0] in self._of_here]
        return [self.verb, "--resume", str(self.run), *chain.from_iterable(here)]

    def telling(self, words: list[str]) -> list[str]:
        """A command line of its kind without what changes where and how fast its work is done, not what comes of it."""
        return [word for option, word in pairwise(["", *words]) if not {option, word} & self._of_here]

    @property
    def _of_here(self) -> set[str]:
        return {*_OF_MACHINE, *self.places}


def digest(content: dict[str, Any]) -> str:
    """Short, of what a recipe says; its comments and its order say nothing."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
