"""Results computed from shards, one file per shard, in a hidden folder next to them, kept up to date."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from mae_kit.console import progress
from mae_kit.data.index.index import cache_path
from mae_kit.data.index.open import Index
from mae_kit.files.durable import clear_unfinished, replacing, takes_files
from mae_kit.parallel import Engine, run_tasks

ROWS = "rows"
_KINDS = {"F32": np.float32, "I64": np.int64, "U64": np.uint64, "U8": np.uint8, "BOOL": np.bool_}

Arrays = dict[str, np.ndarray]
Make = Callable[[Index, Callable[[], None]], Arrays]


class Sidecars(NamedTuple):
    """One kind of such files.

    Attributes:
        name: Of the hidden folder, without its dot.
        recipe: Everything, apart from the shard, that determines the arrays; a file of another recipe is ignored.
        empty: The arrays of a shard without samples. Those of others have a row for each sample, or for each of `rows`,
            an array of ascending numbers of samples; a file that holds anything else is ignored, too.
        most: Samples a file, where the arrays of a whole shard are too large for memory; None = a file a shard.
    """

    name: str
    recipe: str
    empty: Arrays
    most: int | None = None

    def compute(
        self, index: Index, make: Make, workers: int = 0, engine: Engine = "processes", preload: tuple[str, ...] = ()
    ) -> list[Arrays]:
        """The arrays of each shard, in their order; only those that are not there are made: see `complete`."""
        return [_read(path) for path in self.complete(index, make, workers, engine, preload)]

    def complete(
        self, index: Index, make: Make, workers: int = 0, engine: Engine = "processes", preload: tuple[str, ...] = ()
    ) -> list[Path]:
        """The file of each shard, in their order, for arrays that need not fit into memory.

        Args:
            index: The shards.
            make: Arrays of one shard, from its index; calls its second argument once a sample. Picklable.
            workers: Tasks at once; 0 = one per core.
            engine: Where they run.
            preload: Modules that `make` needs.

        Raises:
            OSError: Neither the folder nor the user's cache can be written.
        """
        parts = index.apart(self.most)
        todo = [part for part in parts if self.find(part) is None]
        self._sweep(index)
        with progress(self.name, float(sum(map(len, todo)))) as advance:
            run_tasks(partial(_make, self, make), todo, advance, workers, engine, preload)
        return [self._made(part) for part in parts]

    def find(self, part: Index) -> Path | None:
        """The file of one shard, if there is a sound one: made from these samples by this recipe."""
        return next((path for path in self._paths(part) if self._is_sound(path, part)), None)

    def write(self, part: Index, arrays: Arrays) -> None:
        """Write durably next to the shard, or to the user's cache where that folder is read-only."""
        near, cache = self._paths(part)
        path = near if takes_files(part.folder) else cache
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as making:
            making.write_bytes(to_safetensors(arrays, {"mae_kit_sidecar": self._stamp(part)}))

    def remove(self, index: Index) -> None:
        """Delete the files of all shards."""
        for folder in self._folders(index):
            shutil.rmtree(folder, ignore_errors=True)

    def _is_sound(self, path: Path, part: Index) -> bool:
        try:
            with safe_open(path, "numpy") as file:
                stamp = (file.metadata() or {}).get("mae_kit_sidecar")
                return stamp == self._stamp(part) and _fits(file, self.empty, len(part))
        except (SafetensorError, OSError):
            return False

    def _made(self, part: Index) -> Path:
        path = self.find(part)
        assert path is not None
        return path

    def _paths(self, part: Index) -> tuple[Path, Path]:
        piece = f"-{part.offset[0]}" if self.most and len(part) else ""
        file = f"{part.shards[0]}{piece}.safetensors"
        near, cache = self._folders(part)
        return near / file, cache / file

    def _folders(self, index: Index) -> tuple[Path, Path]:
        return index.folder / f".{self.name}", cache_path(self.name, index.folder)

    def _stamp(self, part: Index) -> str:
        scale = [] if part.scale is None else [repr(part.scale)]
        return json.dumps([self.recipe, part.contents[part.shards[0]], *scale])

    def _sweep(self, index: Index) -> None:
        for folder in self._folders(index):
            clear_unfinished(folder)


def _make(sidecars: Sidecars, make: Make, part: Index, tick: Callable[[], None]) -> None:
    sidecars.write(part, make(part, tick))


def _read(path: Path) -> Arrays:
    with safe_open(path, "numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _fits(file: Any, empty: Arrays, samples: int) -> bool:
    """Whether an open file, which may be a stranger's, holds such arrays of so many samples."""
    found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    kinds = {name: (_KINDS.get(one.get_dtype()), *one.get_shape()[1:]) for name, one in found.items()}
    if kinds != {name: (one.dtype, *one.shape[1:]) for name, one in empty.items()}:
        return False
    counts = {len(one.get_shape()) and one.get_shape()[0] for one in found.values()}
    if ROWS not in empty:
        return counts == {samples}
    rows = file.get_tensor(ROWS)
    return counts == {len(rows)} and bool((np.diff(rows, prepend=-1, append=samples) > 0).all())
