"""The index of a folder of shards: where each sample lies, so that order and resume are arithmetic.

One safetensors file beside the shards, one row a sample; made on first use, and again for each shard that changed.
"""

import glob
import os
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mae_kit.console import hush, progress, say
from mae_kit.data.cache import Cache
from mae_kit.data.remote import Place, is_url
from mae_kit.data.samples import Problem, Sample, read_shard
from mae_kit.data.store import Stamps, Store, fetch_index
from mae_kit.data.table import COLUMNS, FILE, Index, Keys, cache_file, load, save
from mae_kit.errors import UserError

__all__ = ["Index", "index", "open_index"]

_TAR = re.compile(r"\.(tar(\.(gz|bz2|xz|zst|lz4))?|tgz)$", re.IGNORECASE)
_EXAMPLES = 5
_UNREADABLE = "unreadable shard"


def open_index(shards: Place, workers: int = 0, cache: Cache | None = None) -> Index:
    """Open the index of a folder of shards; make it on first use, and read again the shards that changed since.

    Args:
        shards: A folder of webdataset tars, one tar, or a pattern in a folder such as `DIR/train-*.tar`; or a URL of
            these, where the index lies beside the shards.
        workers: Shards read at once; 0 = one per core.
        cache: Where remote shards go; by default in the user's cache.

    Raises:
        UserError: No such folder, no tar in it, no usable image in them, or a URL without an index.
    """
    if is_url(shards):
        return _open_remote(str(shards), cache or Cache())
    folder = Path(shards)
    base, pattern = _split(folder)
    stamps, classes = _stamps(base, pattern), _read_classes(base)
    known, old = _stored(base, stamps, classes)
    if old is None or known != stamps:
        rows = _parts(old) if old is not None else {}
        kept = {name: part for name, part in rows.items() if known[name] == stamps.get(name)}
        say(f"Indexing {len(stamps) - len(kept)} of {len(stamps)} shards in {base}; only what changes is read again.")
        old = _build(base, stamps, classes, workers, kept)
        try:
            save(old, _believed(old, stamps))
        except OSError as error:
            say(f"The index of {base} cannot be saved ({error.strerror}); it will be made again next time.")
    return _usable(old.within(pattern), folder)


def index(folder: Place, workers: int = 0) -> dict[str, Any]:
    """Index webdataset tars: where each sample lies, its checksum, label and size; names all that is damaged or odd.

    Reads every shard anew, extracts nothing, and saves `index.safetensors` beside the shards (in the user's cache
    where that folder is read-only). Training does this by itself on first use.

    Args:
        folder: A folder of tars, or a pattern in a folder such as `DIR/train-*.tar`.
        workers: Shards read at once; 0 = one per core.
    """
    if is_url(folder):
        fix = f"run `mae-kit index` where the shards are made, and upload {FILE} with them"
        raise UserError(f"every byte of {folder} would have to be downloaded", fix)
    base, pattern = _split(Path(folder))
    stamps, start = _stamps(base, pattern), time.perf_counter()
    whole = _build(base, stamps, _read_classes(base), workers, kept={})
    seconds = time.perf_counter() - start
    part = _usable(whole.within(pattern), folder)
    try:
        saved = save(whole, _believed(whole, stamps))
    except OSError as error:
        raise UserError(f"the index of {base} cannot be saved", f"{error.strerror}; make room there") from None
    megabytes = sum(size for size, _ in stamps.values()) / 1e6
    counts = _counts(part) | {"index": str(saved), "seconds": seconds, "megabytes_per_second": megabytes / seconds}
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
        raise UserError(f"no folder {missing}", "name a folder of .tar shards, or make one: mae-kit shard IMAGES OUT")
    return base, name


def _stamps(base: Path, pattern: str) -> Stamps:
    """All tars of the folder, by name; refuses a folder or a pattern without any."""
    with os.scandir(base) as entries:
        tars = sorted((entry.name, entry.stat()) for entry in entries if _TAR.search(entry.name) and entry.is_file())
    if not tars:
        inside = ", ".join(sorted({path.parent.name for path in base.glob("*/*.tar")})[:5])
        fix = f"name one of its folders {inside}" if inside else "make some with mae-kit shard IMAGES OUT"
        raise UserError(f"no .tar shard in {base}", fix)
    names = [name for name, _ in tars]
    if not any(fnmatchcase(name, pattern) for name in names):
        raise UserError(f"no shard in {base} is called {pattern}", f"it holds {', '.join(names[:5])}")
    return {name: (status.st_size, status.st_mtime_ns) for name, status in tars}


def _read_classes(base: Path) -> list[str] | None:
    path = base / "classes.txt"
    if not path.is_file():
        return None
    lines = path.read_text("utf-8-sig", errors="replace").rstrip().splitlines()
    return [line.strip() for line in lines] or None


def _usable(part: Index, folder: Place) -> Index:
    if len(part):
        return part
    first = next((f"{problem.shard}: {problem.reason}" for problem in part.problems), "no image in the shards")
    fix = "look at the files, or pack the images again with mae-kit shard IMAGES OUT"
    raise UserError(f"no usable image in {folder} ({first})", fix)


# A URL


def _open_remote(url: str, cache: Cache) -> Index:
    base, name = url.rstrip("/"), "*"
    if glob.has_magic(base.rpartition("/")[2]) or _TAR.search(base):
        base, _, name = base.rpartition("/")
    file = fetch_index(base, FILE, cache)
    with hush():
        stamps, whole = load(file, cache.folder)
    if whole is None:
        file.unlink(missing_ok=True)
        raise UserError(f"{base}/{FILE} is damaged or of another version", "run `mae-kit index` again and upload it")
    whole.store = Store(base, stamps, cache)
    part = whole.within(name)
    if not part.shards:
        raise UserError(f"no shard in {base} is called {name}", f"it holds {', '.join(whole.shards[:5])}")
    return _usable(part, url)


# Reading shards


class _Part(NamedTuple):
    """The rows of one shard."""

    columns: dict[str, np.ndarray]
    keys: Iterable[str]
    problems: list[Problem]


def _build(base: Path, stamps: Stamps, classes: list[str] | None, workers: int, kept: dict[str, _Part]) -> Index:
    """Index all shards of the folder; rows of the `kept` ones are taken over unread."""
    parts = kept | _read_all(base, {name: stamps[name] for name in stamps if name not in kept}, classes, workers)
    ordered = [parts[name] for name in stamps]
    lengths = [len(part.columns["offset"]) for part in ordered]
    return Index(
        folder=base,
        shards=list(stamps),
        shard=np.repeat(np.arange(len(ordered), dtype=np.int32), lengths),
        keys=Keys.pack(chain.from_iterable(part.keys for part in ordered)),
        classes=classes,
        problems=[problem for part in ordered for problem in part.problems],
        **{name: np.concatenate([part.columns[name] for part in ordered]) for name in COLUMNS},
    )


def _parts(whole: Index) -> dict[str, _Part]:
    """Take an index apart again; rows lie in the order of shards."""
    problems: dict[str, list[Problem]] = defaultdict(list)
    for problem in whole.problems:
        problems[problem.shard].append(problem)
    ends = np.searchsorted(whole.shard, np.arange(len(whole.shards) + 1))
    return {
        name: _Part({column: getattr(whole, column)[a:b] for column in COLUMNS}, whole.keys[a:b], problems[name])
        for name, a, b in zip(whole.shards, ends[:-1], ends[1:], strict=True)
    }


def _read_all(base: Path, stamps: Stamps, classes: list[str] | None, workers: int) -> dict[str, _Part]:
    """Read shards side by side.

    In threads: reading and checksums release the interpreter's lock and the rest takes microseconds a sample, while
    processes would need a guarded `__main__` in every script that trains.
    """
    stop = threading.Event()
    limit = len(classes) if classes else None
    with progress("Indexing", sum(size for size, _ in stamps.values()) / 1e6, "MB") as advance:

        def read(name: str) -> _Part:
            def tick(count: int) -> None:
                if stop.is_set():
                    raise InterruptedError
                advance(count / 1e6)

            return _read_part(base / name, name, limit, tick)

        with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
            try:
                return dict(zip(stamps, pool.map(read, stamps), strict=True))
            except BaseException:  # Ctrl-C most of all: running shards end at their next tick
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise


def _read_part(path: Path, name: str, classes: int | None, advance: Callable[[int], None]) -> _Part:
    try:
        samples, problems = read_shard(path, name, classes, advance)
    except InterruptedError:
        raise
    except OSError as error:
        samples, problems = [], [Problem(name, "", 0, f"{_UNREADABLE}: {error.strerror}")]
    by_field = dict(zip(Sample._fields, zip(*samples, strict=True), strict=True)) if samples else {}
    columns = {column: np.array(by_field.get(column, ()), kind) for column, kind in COLUMNS.items()}
    return _Part(columns, by_field.get("key", ()), problems)


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
    lost = {problem.shard for problem in whole.problems if problem.kind == _UNREADABLE}
    return {name: (-1, -1) if name in lost else stamp for name, stamp in stamps.items()}


# The report


def _counts(part: Index) -> dict[str, Any]:
    groups: dict[str, list[Problem]] = defaultdict(list)
    for problem in part.problems:
        groups[problem.kind].append(problem)
    return {
        "folder": str(part.folder),
        "shards": len(part.shards),
        "samples": len(part),
        "labelled": len(part.labelled()),
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
    say(f"{counts['shards']:,} shards, {counts['samples']:,} samples, {counts['labelled']:,} labelled{classes}")
    for group in counts["problems"]:
        say(f"{group['count']:,} x {group['reason']}, in {len(group['shards'])} of the shards:")
        for problem in group["where"][:_EXAMPLES]:
            key = f", key {problem['key']}" if problem["key"] else ""
            say(f"    {problem['shard']} at byte {problem['offset']}{key}: {problem['reason']}")
        if len(group["where"]) > _EXAMPLES:
            say(f"    and {len(group['where']) - _EXAMPLES:,} more, all of them with --json")
    say(f"{counts['megabytes_per_second']:,.0f} MB/s, saved to {counts['index']}")
