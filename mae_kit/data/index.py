"""The index of a folder of shards: where each sample lies, so that order and resume are arithmetic.

One safetensors file beside the shards, one row a sample; made on first use, and again for each shard that changed.
"""

import glob
import hashlib
import json
import os
import re
import secrets
import sys
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from jaxtyping import Int32, Int64, UInt8, UInt32
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from mae_kit.console import progress, say
from mae_kit.data.samples import Problem, Sample, read_shard
from mae_kit.errors import BadImage, UserError

FILE = "index.safetensors"
VERSION = 1
_COLUMNS = {
    "offset": np.int64,
    "size": np.int64,
    "crc32": np.uint32,
    "label": np.int64,
    "width": np.int32,
    "height": np.int32,
}
_TAR = re.compile(r"\.(tar(\.(gz|bz2|xz|zst|lz4))?|tgz)$", re.IGNORECASE)
_OPEN_SHARDS = 256
_EXAMPLES = 5
Stamps = dict[str, tuple[int, int]]  # shard -> bytes, time of change in ns


class Keys(Sequence[str]):
    """A million strings in two arrays, cheap to save, to fork and to pickle."""

    def __init__(self, letters: UInt8[np.ndarray, " letters"], start: Int64[np.ndarray, " n"], stop: Any):
        self.letters, self.start, self.stop = letters, start, stop

    @classmethod
    def pack(cls, keys: Iterable[str]) -> "Keys":
        words = [key.encode() for key in keys]
        ends = np.cumsum([0, *map(len, words)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(words), np.uint8), ends[:-1], ends[1:])

    def take(self, rows: np.ndarray) -> "Keys":
        return Keys(self.letters, self.start[rows], self.stop[rows])

    def __len__(self) -> int:
        return len(self.start)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> "Keys": ...
    def __getitem__(self, row: int | slice) -> "str | Keys":
        if isinstance(row, slice):
            return Keys(self.letters, self.start[row], self.stop[row])
        return self.letters[self.start[row] : self.stop[row]].tobytes().decode()


class _Descriptor:
    """An open shard; closed when the last reader lets go of it."""

    def __init__(self, path: Path):
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


if sys.platform == "win32":
    _one_reader = threading.Lock()

    def _read_at(shard: _Descriptor, size: int, offset: int) -> bytes:
        with _one_reader:
            os.lseek(shard.number, offset, os.SEEK_SET)
            return os.read(shard.number, size)
else:

    def _read_at(shard: _Descriptor, size: int, offset: int) -> bytes:
        return os.pread(shard.number, size, offset)


@dataclass(eq=False)
class Index:
    """Samples of a folder of shards, one row each, in the order of shards and of bytes.

    Attributes:
        folder: Where the shards lie.
        shards: Names of the shards, relative to `folder`, sorted.
        shard: Row of `shards` that holds the sample.
        offset: First byte of the image in its shard.
        size: Bytes of the image.
        crc32: zlib's checksum of these bytes.
        label: From the `.cls` member; -1 = no valid label.
        width: Pixels, of the upright image.
        height: Pixels, of the upright image.
        keys: webdataset's keys.
        classes: Lines of `classes.txt`, line k names label k; None without that file.
        problems: All that was odd, by shard and offset.
    """

    folder: Path
    shards: list[str]
    shard: Int32[np.ndarray, " n"]
    offset: Int64[np.ndarray, " n"]
    size: Int64[np.ndarray, " n"]
    crc32: UInt32[np.ndarray, " n"]
    label: Int64[np.ndarray, " n"]
    width: Int32[np.ndarray, " n"]
    height: Int32[np.ndarray, " n"]
    keys: Keys
    classes: list[str] | None
    problems: list[Problem]
    _open: dict[int, _Descriptor] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.shard)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over what a run depends on: shard names, and sizes, offsets, checksums and labels of the samples."""
        digest = hashlib.sha256(json.dumps(self.shards).encode())
        for column in (self.shard, self.size, self.offset, self.crc32, self.label):
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()

    def labelled(self) -> Int64[np.ndarray, " m"]:
        """Rows with a valid label."""
        return np.flatnonzero(self.label >= 0)

    def read(self, row: int) -> bytes:
        """Read the bytes of one image, from any thread or process.

        Raises:
            BadImage: They are not the bytes that were indexed, or cannot be read.
        """
        shard, offset, size = int(self.shard[row]), int(self.offset[row]), int(self.size[row])
        try:
            data = _read_at(self._descriptor(shard), size, offset)
        except OSError as error:
            raise BadImage(f"cannot read {self.shards[shard]}: {error.strerror}") from None
        if len(data) < size:
            raise BadImage(f"{self.shards[shard]} ends inside the image: {len(data)} of {size} bytes")
        if zlib.crc32(data) != self.crc32[row]:
            raise BadImage(f"checksum differs from the index: {self.shards[shard]} changed, or the disk fails")
        return data

    def _descriptor(self, shard: int) -> _Descriptor:
        found = self._open.get(shard)
        if found is None:
            if len(self._open) >= _OPEN_SHARDS:
                self._open = {}
            found = self._open[shard] = _Descriptor(self.folder / self.shards[shard])
        return found

    def within(self, pattern: str) -> "Index":
        """The part in shards whose name matches a shell pattern."""
        kept = [number for number, name in enumerate(self.shards) if fnmatchcase(name, pattern)]
        if len(kept) == len(self.shards):
            return self
        rows = np.flatnonzero(np.isin(self.shard, kept))
        names = [self.shards[number] for number in kept]
        return Index(
            folder=self.folder,
            shards=names,
            shard=np.searchsorted(kept, self.shard[rows]).astype(np.int32),
            keys=self.keys.take(rows),
            classes=self.classes,
            problems=[problem for problem in self.problems if problem.shard in set(names)],
            **{name: getattr(self, name)[rows] for name in _COLUMNS},
        )


def open_index(folder: Path, workers: int = 0) -> Index:
    """Open the index of a folder of shards; make it on first use, and read again the shards that changed since.

    Args:
        folder: A folder of webdataset tars, one tar, or a pattern in a folder such as `DIR/train-*.tar`.
        workers: Shards read at once; 0 = one per core.

    Raises:
        UserError: No such folder, no tar in it, or no usable image in them.
    """
    base, pattern = _split(folder)
    stamps, classes = _stamps(base, pattern), _read_classes(base)
    known, old = _stored(base, stamps, classes)
    if old is None or known != stamps:
        rows = _parts(old) if old is not None else {}
        kept = {name: part for name, part in rows.items() if known[name] == stamps.get(name)}
        say(f"Indexing {len(stamps) - len(kept)} of {len(stamps)} shards in {base}; only what changes is read again.")
        old = _build(base, stamps, classes, workers, kept)
        try:
            _save(old, stamps)
        except OSError as error:
            say(f"The index of {base} cannot be saved ({error.strerror}); it will be made again next time.")
    return _usable(old.within(pattern), folder)


def index(folder: Path, workers: int = 0) -> dict[str, Any]:
    """Index webdataset tars: where each sample lies, its checksum, label and size; names all that is damaged or odd.

    Reads every shard anew, extracts nothing, and saves `index.safetensors` beside the shards (in the user's cache
    where that folder is read-only). Training does this by itself on first use.

    Args:
        folder: A folder of tars, or a pattern in a folder such as `DIR/train-*.tar`.
        workers: Shards read at once; 0 = one per core.
    """
    base, pattern = _split(folder)
    stamps, start = _stamps(base, pattern), time.perf_counter()
    whole = _build(base, stamps, _read_classes(base), workers, kept={})
    seconds = time.perf_counter() - start
    part = _usable(whole.within(pattern), folder)
    try:
        saved = _save(whole, stamps)
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
        inside = sorted({path.parent.name for path in base.glob("*/*.tar")})
        fix = (
            f"name one of its folders {', '.join(inside[:5])}" if inside else "make some with mae-kit shard IMAGES OUT"
        )
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


def _usable(part: Index, folder: Path) -> Index:
    if len(part):
        return part
    first = next((f"{problem.shard}: {problem.reason}" for problem in part.problems), "no image in the shards")
    fix = "look at the files, or pack the images again with mae-kit shard IMAGES OUT"
    raise UserError(f"no usable image in {folder} ({first})", fix)


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
        **{name: np.concatenate([part.columns[name] for part in ordered]) for name in _COLUMNS},
    )


def _parts(whole: Index) -> dict[str, _Part]:
    """Take an index apart again; rows lie in the order of shards."""
    problems: dict[str, list[Problem]] = defaultdict(list)
    for problem in whole.problems:
        problems[problem.shard].append(problem)
    ends = np.searchsorted(whole.shard, np.arange(len(whole.shards) + 1))
    return {
        name: _Part({column: getattr(whole, column)[a:b] for column in _COLUMNS}, whole.keys[a:b], problems[name])
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
        samples, problems = [], [Problem(name, "", 0, f"unreadable shard: {error.strerror}")]
    by_field = dict(zip(Sample._fields, zip(*samples, strict=True), strict=True)) if samples else {}
    columns = {column: np.array(by_field.get(column, ()), kind) for column, kind in _COLUMNS.items()}
    return _Part(columns, by_field.get("key", ()), problems)


# The file


def _stored(base: Path, stamps: Stamps, classes: list[str] | None) -> tuple[Stamps, Index | None]:
    """The saved index that fits the folder best, and the stamps of the shards it knows; None where there is none."""
    best: tuple[Stamps, Index | None] = ({}, None)
    for path in (base / FILE, _cache_file(base)):
        if path.is_file():
            known, found = _load(path, base)
            if found is not None and found.classes == classes:
                best = known, found
                if known == stamps:
                    break
    return best


def _load(path: Path, base: Path) -> tuple[Stamps, Index | None]:
    """An index that is damaged or of another version counts as none: it is made again."""
    try:
        with safe_open(path, "numpy") as file:
            head = json.loads((file.metadata() or {})["mae_kit_index"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        found = Index(
            folder=base,
            shards=list(head["stamps"]),
            shard=arrays["shard"],
            keys=Keys(arrays["key_letters"], arrays["key_start"], arrays["key_stop"]),
            classes=head["classes"],
            problems=[Problem(*problem) for problem in head["problems"]],
            **{name: arrays[name] for name in _COLUMNS},
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        say(f"{path} is no index of this version; it will be made again.")
        return {}, None
    if head["version"] != VERSION or head["fingerprint"] != found.fingerprint:
        say(f"{path} is damaged or of another version; it will be made again.")
        return {}, None
    return {name: (size, changed) for name, (size, changed) in head["stamps"].items()}, found


def _save(whole: Index, stamps: Stamps) -> Path:
    """Write beside the shards, or into the user's cache where that folder does not take it; returns where.

    Raises:
        OSError: Neither takes it; nothing is left behind.
    """
    head = {
        "version": VERSION,
        "stamps": stamps,
        "classes": whole.classes,
        "problems": whole.problems,
        "fingerprint": whole.fingerprint,
    }
    arrays = {name: getattr(whole, name) for name in ("shard", *_COLUMNS)}
    arrays |= {"key_letters": whole.keys.letters, "key_start": whole.keys.start, "key_stop": whole.keys.stop}
    data = to_safetensors(arrays, {"mae_kit_index": json.dumps(head)})
    if _takes_files(whole.folder):
        try:
            return _write_durably(whole.folder / FILE, data)
        except OSError:
            pass  # full or read-only in a way its permissions do not show: the cache may be on another disk
    cached = _cache_file(whole.folder)
    cached.parent.mkdir(parents=True, exist_ok=True)
    return _write_durably(cached, data)


def _cache_file(base: Path) -> Path:
    name = hashlib.sha256(os.fsencode(base.resolve())).hexdigest()[:16]
    return user_cache_path("mae_kit") / f"index-{name}.safetensors"


def _takes_files(folder: Path) -> bool:
    """Whether its permissions let files in; a folder without any write bit is left alone even by the superuser."""
    return bool(folder.stat().st_mode & 0o222) and os.access(folder, os.W_OK)


def _write_durably(path: Path, data: bytes) -> Path:
    """Whole or not at all, even through a power cut; not by `tempfile`, whose files only their owner may read."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return path


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
