"""Indices of single shards: what a job on a whole folder leaves behind until it has come to its end, a file a shard.

A job that was stopped resumes with the shards that have none, or that changed since.
"""

import shutil
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mae_kit.data.index.index import COLUMNS, EXTRAS, Index, load, parts_folder, write
from mae_kit.data.index.sample_ids import Keys
from mae_kit.data.index.samples import Problem, Sample, read_shard
from mae_kit.data.remote.store import Stamp, Stamps

UNREADABLE = "unreadable shard"
_STEP = 1_000_000  # bytes


class Parts(NamedTuple):
    """The single shards of a folder.

    Attributes:
        base: Where the shards lie.
        classes: As of the whole index.
        folder: Where their indices are kept.
    """

    base: Path
    classes: list[str] | None
    folder: Path

    @classmethod
    def of(cls, base: Path, classes: list[str] | None) -> "Parts":
        return cls(base, classes, parts_folder(base))

    def read(self, name: str, advance: Callable[[int], None]) -> Index:
        """Index a shard; `advance` receives the number of bytes read. One that cannot be read at all is a problem."""
        try:
            samples, problems = read_shard(self.base / name, name, len(self.classes or ()) or None, advance)
        except InterruptedError:
            raise
        except OSError as error:
            samples, problems = [], [Problem(name, "", 0, f"{UNREADABLE}: {error.strerror}")]
        by_field = dict(zip(Sample._fields, zip(*samples, strict=True), strict=True)) if samples else {}
        columns = {column: np.array(by_field.get(column, ()), kind) for column, kind in COLUMNS.items()}
        shard, keys = np.zeros(len(samples), np.int32), Keys.pack(by_field.get("key", ()))
        part = Index(self.base, [name], shard, **columns, keys=keys, classes=self.classes, problems=problems)
        for extra, field in zip(EXTRAS, ("classes", "mask", "target", "objects"), strict=True):
            if any(each is not None for each in by_field.get(field, ())):
                setattr(part, extra, EXTRAS[extra].pack(by_field[field]))
        return part

    def keep(self, part: Index, stamp: Stamp) -> None:
        """Write the index of a shard into a file of its own; none of one that was not read, so that it is tried again.

        Raises:
            OSError: The disk is full and the like.
        """
        if not unreadable(part):
            write(self._file(part.shards[0]), part, {part.shards[0]: stamp}, flush=False)

    def kept(self, stamps: Stamps) -> dict[str, Index]:
        """What is there of these shards, and fits them as they are now."""
        found = {}
        for name, stamp in stamps.items():
            if self._file(name).is_file():
                known, part = load(self._file(name), self.base)
                if part is not None and known == {name: stamp} and part.classes == self.classes:
                    found[name] = part
        return found

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def join(self, parts: Iterable[Index]) -> Index:
        """One index of single shards', in this order."""
        parts = list(parts)
        whole = Index(
            folder=self.base,
            shards=[part.shards[0] for part in parts],
            shard=np.repeat(np.arange(len(parts), dtype=np.int32), list(map(len, parts))),
            keys=Keys.pack(chain.from_iterable(part.keys for part in parts)),
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS},
            classes=self.classes,
            problems=list(chain.from_iterable(part.problems for part in parts)),
        )
        for name in dict.fromkeys(name for part in parts for name in part.extras):
            held = (part.extras.get(name, EXTRAS[name].unknown(len(part))) for part in parts)
            setattr(whole, name, EXTRAS[name].join(list(held)))
        return whole

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def write_part(parts: Parts, task: tuple[str, Stamp], tick: Callable[[], None]) -> None:
    """Index one shard, named with its stamp, into a file of its own; a tick a step."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        for _ in range(steps(done + count) - steps(done)):
            tick()
        done += count

    name, stamp = task
    parts.keep(parts.read(name, advance), stamp)


def steps(size: int) -> int:
    """Steps of a shard of so many bytes: megabytes, the last one begun."""
    return -(-size // _STEP)


def unreadable(whole: Index) -> set[str]:
    """Names of the shards that could not be read at all."""
    return {problem.shard for problem in whole.problems if problem.kind == UNREADABLE}
