"""The index of a folder of shards: where each sample lies, so that order and resume are arithmetic.

One safetensors file beside the shards, one row a sample; made on first use, and again for each shard that changed.
"""

import glob
import logging
import os
import re
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from mae_kit.console import progress
from mae_kit.data.index.class_names import read_classes
from mae_kit.data.index.index import FILE, Index, cache_file, load, save
from mae_kit.data.index.listing import NO_FILE, holds
from mae_kit.data.index.parts import UNREADABLE, Parts, steps, unreadable, write_part
from mae_kit.data.index.samples import Problem
from mae_kit.data.remote.cache import Cache
from mae_kit.data.remote.filesystem import Place, is_url
from mae_kit.data.remote.store import Stamps, Store, fetch_index
from mae_kit.errors import UserError
from mae_kit.parallel import Engine, run_tasks
from mae_kit.parallel.processes import cores

log = logging.getLogger(__name__)

__all__ = ["Index", "index", "open_index"]

_TAR = re.compile(r"\.(tar(\.(gz|bz2|xz|zst|lz4))?|tgz)$", re.IGNORECASE)
_EXAMPLES = 5
_SMALL = 50  # megabytes that are read before other processes have started


def open_index(shards: Place, cache: Cache | None = None) -> Index:
    """Open the index of a folder of shards; make it on first use, and read again the shards that changed since.

    Args:
        shards: A folder of webdataset tars, one tar, or a pattern in a folder such as `DIR/train-*.tar`; or a URL of
            these, where the index lies beside the shards.
        cache: Where remote shards go; by default in the user's cache.

    Raises:
        UserError: No such folder, no tar in it, no usable image in them, or a URL without an index.
    """
    if is_url(shards):
        return _open_remote(str(shards), cache or Cache())
    folder = Path(shards)
    base, pattern = _split(folder)
    stamps, classes = _stamps(base, pattern), read_classes(base)
    known, old = _stored(base, stamps, classes)
    if old is None or known != stamps:
        parts = Parts.of(base, classes)
        rows = dict(zip(old.shards, old.apart(), strict=True)) if old is not None else {}
        there = {name: part for name, part in rows.items() if known[name] == stamps.get(name)}
        there |= parts.kept(_missing(stamps, there))
        log.info(
            f"Indexing {len(stamps) - len(there)} of {len(stamps)} shards in {base}; only changed shards are read."
        )
        old = _whole(parts, stamps, there)
        _must_hold_images(old, parts, folder)
        try:
            save(old, _believed(old, stamps))
        except OSError as error:
            log.warning(f"The index of {base} cannot be saved ({error.strerror}); it will be made again next time.")
        parts.remove()
    return _usable(old.within(pattern), folder)


def index(folder: Place, workers: int = 0, engine: Engine = "processes") -> dict[str, Any]:
    """Index webdataset tars: where each sample lies, its checksum, label and size; names all that is damaged or odd.

    Reads every shard anew, extracts nothing, and saves `index.safetensors` beside the shards (in the user's cache
    where that folder is read-only). The same command again finishes a job that was stopped: it reads what that one had
    not read, or what changed since. Training does all this by itself on first use.

    Args:
        folder: A folder of tars, or a pattern in a folder such as `DIR/train-*.tar`.
        workers: Shards read at once; 0 = one per core.
        engine: processes = on this machine; ray = on all nodes of a Ray cluster, which see FOLDER under the same path;
            the cluster is that of RAY_ADDRESS or the one this machine belongs to, else this machine alone.

    Returns:
        How many shards, samples, labels and problems there are, the path of the index, and how long it took.

    Raises:
        UserError: No folder, no shard that can be read, no room for the index, or a URL.
    """
    if is_url(folder):
        fix = f"run `mae-kit index` where the shards are made, and upload {FILE} with them"
        raise UserError("open.index", f"every byte of {folder} would have to be downloaded", fix)
    base, pattern = _split(Path(folder))
    stamps, start = _stamps(base, pattern), time.perf_counter()
    parts = Parts.of(base, read_classes(base))
    try:
        whole = _index_all(parts, stamps, workers, engine)
        seconds = time.perf_counter() - start
        _must_hold_images(whole, parts, folder)
        saved = save(whole, _believed(whole, stamps))
    except OSError as error:
        raise UserError(
            "open.index", f"the index of {base} cannot be saved", f"{error.strerror}; make room there"
        ) from None
    parts.remove()
    part = _usable(whole.within(pattern), folder)
    megabytes = sum(size for size, _ in stamps.values()) / 1e6
    counts = _counts(part, _no_files(base, pattern))
    counts |= {"index": str(saved), "seconds": seconds, "megabytes_per_second": megabytes / seconds}
    _tell(counts)
    return counts


# The folder


def _split(folder: Path) -> tuple[Path, str]:
    """The folder proper, and the pattern of the shards that are meant."""
    if folder.is_dir():
        return folder, "*"
    base, name = folder.parent, folder.name
    if folder.is_file():
        return base, glob.escape(name)
    if not base.is_dir() or glob.escape(name) == name:
        missing = folder if base.is_dir() else base
        raise UserError(
            "open.split", f"no folder {missing}", "name a folder of .tar shards, or make one: mae-kit shard IMAGES OUT"
        )
    return base, name


def _stamps(base: Path, pattern: str) -> Stamps:
    """All tars of the folder, by name; refuses a folder or a pattern without any."""
    with os.scandir(base) as entries:
        found = [entry for entry in entries if _TAR.search(entry.name) and holds(entry.is_file)]
        tars = sorted((entry.name, entry.stat()) for entry in found)
    if not tars:
        inside = ", ".join(sorted({path.parent.name for path in base.glob("*/*.tar")})[:5])
        fix = f"name one of its folders {inside}" if inside else "make some with mae-kit shard IMAGES OUT"
        raise UserError("open.stamps", f"no .tar shard in {base}", fix)
    names = [name for name, _ in tars]
    if not any(fnmatchcase(name, pattern) for name in names):
        raise UserError("open.stamps", f"no shard in {base} is called {pattern}", f"it holds {', '.join(names[:5])}")
    return {name: (status.st_size, status.st_mtime_ns) for name, status in tars}


def _no_files(base: Path, pattern: str) -> list[Problem]:
    """What is called a shard and cannot be one, as a link to a disk that is gone."""
    with os.scandir(base) as entries:
        found = sorted(entry.name for entry in entries if _TAR.search(entry.name) and not holds(entry.is_file))
    return [Problem(name, "", 0, f"{UNREADABLE}: {NO_FILE}") for name in found if fnmatchcase(name, pattern)]


def _must_hold_images(whole: Index, parts: Parts, folder: Place) -> None:
    """Refuse shards without any before an index of them is left in the folder."""
    if not len(whole):
        parts.remove()
        _usable(whole, folder)


def _usable(part: Index, folder: Place) -> Index:
    if len(part):
        return part
    first = next((f"{problem.shard}: {problem.reason}" for problem in part.problems), "no image in the shards")
    fix = "look at the files, or pack the images again with mae-kit shard IMAGES OUT"
    raise UserError("open.usable", f"no usable image in {folder} ({first})", fix)


# A URL


def _open_remote(url: str, cache: Cache) -> Index:
    base, name = url.rstrip("/"), "*"
    if glob.has_magic(base.rpartition("/")[2]) or _TAR.search(base):
        base, _, name = base.rpartition("/")
    file = fetch_index(base, FILE, cache)
    stamps, whole = load(file, cache.folder)
    if whole is None:
        file.unlink(missing_ok=True)
        raise UserError(
            "open.open_remote",
            f"{base}/{FILE} is damaged or of another version",
            "run `mae-kit index` again and upload it",
        )
    whole.store = Store(base, stamps, cache)
    part = whole.within(name)
    if not part.shards:
        raise UserError(
            "open.open_remote", f"no shard in {base} is called {name}", f"it holds {', '.join(whole.shards[:5])}"
        )
    return _usable(part, url)


# Reading shards


def _missing(stamps: Stamps, there: dict[str, Index]) -> Stamps:
    return {name: stamp for name, stamp in stamps.items() if name not in there}


def _index_all(parts: Parts, stamps: Stamps, workers: int, engine: Engine) -> Index:
    """Let an engine read all shards but those that a stopped job has read."""
    there = parts.kept(stamps)
    if there:
        log.info(f"{len(there)} of {len(stamps)} shards were indexed by a job that was stopped.")
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


# The report


def _counts(part: Index, beside: list[Problem]) -> dict[str, Any]:
    groups: dict[str, list[Problem]] = defaultdict(list)
    for problem in [*part.problems, *beside]:
        groups[problem.kind].append(problem)
    return {
        "folder": str(part.folder),
        "shards": len(part.shards),
        "samples": len(part),
        "labeled": len(part.labeled()),
        "classes": part.classes,
        "problems": [
            {
                "reason": kind,
                "count": len(group),
                "shards": sorted({problem.shard for problem in group}),
                "where": [problem._asdict() for problem in group],
            }
            for kind, group in groups.items()
        ],
    }


def _tell(counts: dict[str, Any]) -> None:
    classes = f", {len(counts['classes'])} classes" if counts["classes"] else ""
    log.info(f"{counts['shards']:,} shards, {counts['samples']:,} samples, {counts['labeled']:,} labeled{classes}")
    for group in counts["problems"]:
        log.info(f"{group['count']:,} x {group['reason']}, in {len(group['shards'])} of the shards:")
        for problem in group["where"][:_EXAMPLES]:
            key = f", key {problem['key']}" if problem["key"] else ""
            log.info(f"    {problem['shard']} at byte {problem['offset']}{key}: {problem['reason']}")
        if len(group["where"]) > _EXAMPLES:
            log.info(f"    and {len(group['where']) - _EXAMPLES:,} more, all of them with --json")
    log.info(f"{counts['megabytes_per_second']:,.0f} MB/s, saved to {counts['index']}")
