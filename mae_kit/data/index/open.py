"""The index of a folder of shards: the position of each sample, so that order and resume are arithmetic.

One safetensors file next to the shards, one row per sample; made on first use, updated for shards that changed.
"""

import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mae_kit.console import progress
from mae_kit.data.index.class_names import read_classes
from mae_kit.data.index.index import FILE, Index, cache_file, load, save
from mae_kit.data.index.listing import NO_FILE, holds
from mae_kit.data.index.parts import UNREADABLE, Parts, steps, unreadable, write_part
from mae_kit.data.index.patterns import TAR, Pattern, has_pattern, parse_pattern
from mae_kit.data.index.samples import DARK, Problem
from mae_kit.data.remote.cache import Cache
from mae_kit.data.remote.filesystem import NotThere, Place, is_url
from mae_kit.data.remote.store import Stamps, Store, fetch_beside
from mae_kit.errors import UserError
from mae_kit.parallel import Engine, run_tasks
from mae_kit.parallel.processes import cores

log = logging.getLogger(__name__)

__all__ = ["Index", "Made", "make_index", "open_index"]

_SMALL = 50  # megabytes that are read before other processes have started


def open_index(shards: Place, cache: Cache | None = None) -> Index:
    """Open the index of a folder of shards; make it on first use, and read again the shards that changed since.

    Args:
        shards: A folder of webdataset tars, one tar, or a pattern in a folder such as `DIR/train-*.tar`; or a URL of
            these, with the index next to the shards.
        cache: Where remote shards go; by default in the user's cache.

    Raises:
        UserError: No such folder, no tar in it, no usable image in them, or a URL without an index.
    """
    if is_url(shards):
        return _open_remote(str(shards), cache or Cache())
    pattern = _split(shards)
    base = Path(pattern.base)
    stamps, classes = _stamps(base, pattern), read_classes(base)
    known, old = _stored(base, stamps, classes)
    if old is None or known != stamps:
        parts = Parts.of(base, classes)
        rows = dict(zip(old.shards, old.apart(), strict=True)) if old is not None else {}
        there = {name: part for name, part in rows.items() if known[name] == stamps.get(name)}
        there |= parts.kept(_missing(stamps, there))
        log.info(f"indexing {len(stamps) - len(there)} of {len(stamps)} shards in {base}")
        old = _whole(parts, stamps, there)
        _must_hold_images(old, parts, shards)
        try:
            save(old, _believed(old, stamps))
        except OSError as error:
            log.warning(f"the index of {base} cannot be saved ({error.strerror}); it will be made again next time")
        parts.remove()
    return _usable(old.within(pattern.select(old.shards)), shards)


class Made(NamedTuple):
    """An index that was just made.

    Attributes:
        index: Of the shards that the pattern names.
        path: Where that of the whole folder is saved.
        problems: What is called a shard and cannot be one, in addition to the index's problems.
        megabytes: Size of the shards.
        seconds: How long reading them took.
    """

    index: Index
    path: Path
    problems: list[Problem]
    megabytes: float
    seconds: float


def make_index(folder: Place, workers: int = 0, engine: Engine = "processes") -> Made:
    """Index all shards of a folder from their bytes; a job that was stopped resumes.

    Args:
        folder: A folder of tars, or a pattern in a folder such as `DIR/train-*.tar`.
        workers: Shards read at once; 0 = one per core.
        engine: Where they are read.

    Raises:
        UserError: No folder, no shard that can be read, no room for the index, or a URL.
    """
    if is_url(folder):
        fix = f"run `mae-kit index` where the shards are made, and upload {FILE} with them"
        raise UserError("index.url", f"every byte of {folder} would have to be downloaded", fix)
    pattern = _split(folder)
    base = Path(pattern.base)
    stamps, start = _stamps(base, pattern), time.perf_counter()
    parts = Parts.of(base, read_classes(base))
    try:
        whole = _index_all(parts, stamps, workers, engine)
        seconds = time.perf_counter() - start
        _must_hold_images(whole, parts, folder)
        saved = save(whole, _believed(whole, stamps))
    except OSError as error:
        what = f"the index of {base} cannot be saved"
        raise UserError("index.save", what, f"{error.strerror}; free some space there") from None
    parts.remove()
    part = _usable(whole.within(pattern.select(whole.shards)), folder)
    megabytes = sum(size for size, _ in stamps.values()) / 1e6
    return Made(part, saved, _no_files(base, pattern), megabytes, seconds)


# The folder


def _split(place: Place) -> Pattern:
    """The folder proper, and the names of the shards that are meant."""
    found = parse_pattern(str(place), Path(place).is_dir())
    missing = not Path(found.base).is_dir()
    if missing or not (Path(place).exists() or has_pattern(str(place))):
        fix = "name a folder of .tar shards, or make one: mae-kit shard IMAGES OUT"
        raise UserError("shards.folder", f"no folder {found.base if missing else place}", fix)
    return found


def _stamps(base: Path, pattern: Pattern) -> Stamps:
    """All tars of the folder, by name; refuses a folder or a pattern without any."""
    with os.scandir(base) as entries:
        found = [entry for entry in entries if TAR.search(entry.name) and holds(entry.is_file)]
        tars = sorted((entry.name, entry.stat()) for entry in found)
    if not tars:
        inside = ", ".join(sorted({path.parent.name for path in base.glob("*/*.tar")})[:5])
        fix = f"name one of its folders {inside}" if inside else "give its folder of images, or the pattern of shards"
        raise UserError("shards.none", f"no .tar shard in {base}", fix)
    names = [name for name, _ in tars]
    if not pattern.select(names):
        raise UserError("shards.unknown", f"no shard in {base} is called {pattern}", f"it holds {', '.join(names[:5])}")
    return {name: (status.st_size, status.st_mtime_ns) for name, status in tars}


def _no_files(base: Path, pattern: Pattern) -> list[Problem]:
    """What is called a shard and cannot be one, as a link to a disk that is gone."""
    with os.scandir(base) as entries:
        found = sorted(entry.name for entry in entries if TAR.search(entry.name) and not holds(entry.is_file))
    return [Problem(name, "", 0, f"{UNREADABLE}: {NO_FILE}") for name in pattern.select(found)]


def _must_hold_images(whole: Index, parts: Parts, folder: Place) -> None:
    """Refuse shards without any before an index of them is left in the folder."""
    if not len(whole):
        parts.remove()
        _usable(whole, folder)


def _usable(part: Index, folder: Place) -> Index:
    if len(part):
        if dark := [problem.shard for problem in part.problems if problem.kind == DARK]:
            log.warning(
                f"{folder}: 16-bit images of {len(dark)} shards use less than half of the range and appear dark: "
                "`mae-kit shard` rescales them"
            )
        return part
    first = next((f"{problem.shard}: {problem.reason}" for problem in part.problems), "no image in the shards")
    fix = "look at the files, or pack the images again with mae-kit shard IMAGES OUT"
    raise UserError("shards.unusable", f"no usable image in {folder} ({first})", fix)


# A URL


def _open_remote(url: str, cache: Cache) -> Index:
    last = url.rstrip("/").rpartition("/")[2]
    pattern = parse_pattern(url.rstrip("/"), not (has_pattern(last) or TAR.search(last)))
    base = pattern.base
    try:
        file = fetch_beside(base, FILE, cache)
    except NotThere:
        fix = f"run `mae-kit index` where the shards are made, and upload {FILE} with them"
        raise UserError("shards.remote_index.missing", f"no {FILE} in {base}", fix) from None
    stamps, whole = load(file, cache.folder)
    if whole is None:
        file.unlink(missing_ok=True)
        problem = f"{base}/{FILE} is damaged or of another version"
        raise UserError("shards.remote_index.outdated", problem, "run `mae-kit index` again and upload it")
    whole.store = Store(base, stamps, cache)
    part = whole.within(pattern.select(whole.shards))
    if not part.shards:
        raise UserError(
            "shards.remote_index.pattern",
            f"no shard in {base} is called {pattern}",
            f"it holds {', '.join(whole.shards[:5])}",
        )
    return _usable(part, url)


# Reading shards


def _missing(stamps: Stamps, there: dict[str, Index]) -> Stamps:
    return {name: stamp for name, stamp in stamps.items() if name not in there}


def _index_all(parts: Parts, stamps: Stamps, workers: int, engine: Engine) -> Index:
    """Let an engine read all shards but those that a stopped job has read."""
    there = parts.kept(stamps)
    if there:
        log.info(f"resuming: {len(there)} of {len(stamps)} shards are indexed already")
    todo = _missing(stamps, there)
    megabytes = sum(steps(size) for size, _ in todo.values())
    if engine == "processes" and megabytes < _SMALL:
        workers = workers or 1
    with progress("Indexing", float(megabytes), "MB") as advance:
        run_tasks(partial(write_part, parts), list(todo.items()), advance, workers, engine, (write_part.__module__,))
    return _whole(parts, stamps, there | parts.kept(todo), workers)


def _whole(parts: Parts, stamps: Stamps, there: dict[str, Index], workers: int = 0) -> Index:
    """Put together what is there; the other shards are read here."""
    missing = _missing(stamps, there)
    if missing:
        there = there | _read_here(parts, missing, workers)
    return parts.join(there[name] for name in stamps)


def _read_here(parts: Parts, stamps: Stamps, workers: int) -> dict[str, Index]:
    """Read shards in threads, keeping their parts where there is room for them.

    Processes are faster, but would need a guarded `__main__` in every script that trains.
    """
    stop = threading.Event()
    with progress("Indexing", sum(size for size, _ in stamps.values()) / 1e6, "MB") as advance:

        def read(name: str) -> Index:
            def tick(count: int) -> None:
                if stop.is_set():
                    raise InterruptedError
                advance(count / 1e6)

            part = parts.read(name, tick)
            with suppress(OSError):
                parts.keep(part, stamps[name])
            return part

        with ThreadPoolExecutor(workers or cores()) as pool:
            try:
                return dict(zip(stamps, pool.map(read, stamps), strict=True))
            except BaseException:  # Ctrl-C most of all: running shards end at their next tick
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise


# The file


def _stored(base: Path, stamps: Stamps, classes: list[str] | None) -> tuple[Stamps, Index | None]:
    """The saved index that fits the folder best, and the stamps of the shards it knows; None where there is none."""
    best: tuple[Stamps, Index | None] = ({}, None)
    for path in (base / FILE, cache_file(base)):
        if path.is_file():
            known, found = load(path, base)
            if found is not None and found.classes == classes:
                best = known, found
                if known == stamps:
                    break
    return best


def _believed(whole: Index, stamps: Stamps) -> Stamps:
    """The stamps to save: none of a shard that could not be read at all, so that it is tried again next time."""
    lost = unreadable(whole)
    return {name: (-1, -1) if name in lost else stamp for name, stamp in stamps.items()}
