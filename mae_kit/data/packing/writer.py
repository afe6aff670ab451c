"""Pack images into webdataset shards: planned by arithmetic, written shard by shard, finished by whoever comes again.

Which sample goes to which shard is decided up front from keyed hashes of the samples' names. So the shards are the
same bytes for any number of workers and any number of interruptions, and a shard that is done need not be done again.
"""

import hashlib
import json
import logging
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EDQUOT, EFBIG, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR, EPERM, EROFS
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from mae_kit.console import progress
from mae_kit.data.index.class_names import FILE as CLASSES
from mae_kit.data.index.listing import Skip
from mae_kit.data.packing.encode import Stored, encode
from mae_kit.data.packing.plan import BLOCK, Settings, Task, plan
from mae_kit.data.packing.sources import Reader, Source, open_source
from mae_kit.data.packing.stats import NONE, SKIPPED, channel_stats, depth_stats, megabytes, report, split_stats
from mae_kit.durable import STALE, clear_unfinished, replace_text, replacing
from mae_kit.errors import BadImage, UserError
from mae_kit.parallel import Engine, run_tasks

log = logging.getLogger(__name__)

PLAN, RECORDS, STATS = "shards.json", ".shards", "stats.json"

_FULL = (ENOSPC, EDQUOT, EFBIG)
_NOT_WRITABLE = (EACCES, EPERM, EROFS, ENOENT, ENOTDIR, ENAMETOOLONG)
_SMALLEST_SHARD = 65_536
_PROBES = 64


class Job(NamedTuple):
    """What a worker needs to write any shard."""

    out: Path
    settings: Settings
    read: Reader


def shard(
    src: str,
    out: Path,
    resize: int | None = None,
    quality: int = 90,
    val_fraction: float = 0.0,
    max_shard_size: int = 256_000_000,
    workers: int = 0,
    seed: int = 0,
    labels: str = "auto",
    channels: int = 3,
    black: float | None = None,
    white: float | None = None,
    engine: Engine = "processes",
) -> dict[str, Any]:
    """Pack images into shards; the same command again finishes a job that was stopped.

    OUT receives train-000000.tar, ..., val-000000.tar, ..., stats.json (counts, bytes, channel mean and std),
    skipped.jsonl (what is in no shard, and why), classes.txt (line k names label k) and shards.json (the plan).
    First-level folders, tars or splits named train and val (valid, validation, dev, test) keep that split.

    Args:
        src: A folder of images, class folders, tar shards (a folder, a .tar, or a quoted pattern), hf:NAME[:SPLIT] or
            torchvision:NAME[:SPLIT].
        out: Folder for the shards: a new one, or that of the same job stopped before.
        resize: Pixels of the shorter side; larger images are made smaller, none larger, and all are encoded as JPEG.
            Without it the files go in untouched.
        quality: JPEG quality, 1 to 100, where --resize encodes.
        val_fraction: Share of the images for val shards, 0 up to but not including 1, drawn by a hash of the name.
        max_shard_size: Bytes of a shard at most (an estimate where --resize is given); small sets get smaller shards.
        workers: Shards written at once; 0 = one a core. The shards do not depend on it.
        seed: Of the order and of the drawing for val.
        labels: auto = from first-level folders if all images lie in at least two of these, else none; folders = from
            first-level folders, whatever they are; none = no labels. Or a CSV file with the columns file (relative to
            SRC) and label, the name of one class, or labels: any number of them with ; or | between, or nothing.
        channels: Channels of the statistics: 3 = RGB, 1 = gray, any other number for .npy images.
        black: The value that becomes 0 where --white is given; 0 by default.
        white: The value that becomes 255 in gray images of more than 8 bits and in .npy images of any other number than
            uint8, as 4095 of 12 bits; they are stored as 8-bit PNG or .npy. Without it the upper 8 of 16 bits are kept.
        engine: processes = on this machine; ray = on all nodes of a Ray cluster, which see SRC and OUT under the same
            paths; the cluster is that of RAY_ADDRESS or the one this machine belongs to, else this machine alone.

    Returns:
        What stats.json holds, and `out`.

    Raises:
        UserError: Nothing to pack, an argument out of range, another job in OUT, no space left, and the like.
    """
    settings = Settings(resize, quality, val_fraction, max_shard_size, seed, str(labels), channels, black, white)
    _check_settings(settings, workers)
    _check_out(src, out)
    source = open_source(src, settings.labels)
    _check_classes(source)
    log.info(f"{src}: {source.kind}, {len(source.names):,} images")
    if val_fraction and source.held_out is not None:
        raise UserError(
            "writer.shard", f"{src} has its own val split", "leave out --val-fraction, or give its train part alone"
        )
    sizes, mean = _expected_bytes(out, source, settings)
    tasks = plan(source, settings, sizes)
    with _writing(out, int(sizes.sum())):
        _begin(out, source, settings, mean)
    todo = [task for task in tasks if not _is_done(out, task.shard)]
    if len(todo) < len(tasks):
        log.info(f"{len(tasks) - len(todo)} of {len(tasks)} shards are there already")
    needed = sum(int(sizes[row]) for task in todo for row in task.rows)
    with _writing(out, needed):
        _write_all(Job(out, settings, source.read), todo, workers, engine)
        _check_done(out, tasks)
        return _finish(out, source, tasks)


# Checks


def _check_settings(settings: Settings, workers: int) -> None:
    checks = {
        "resize": ("1 or more pixels", settings.resize is None or settings.resize >= 1),
        "quality": ("1 to 100", 1 <= settings.quality <= 100),
        "val_fraction": ("0 up to but not including 1", 0 <= settings.val_fraction < 1),
        "max_shard_size": (f"{_SMALLEST_SHARD:,} bytes or more", settings.max_shard_size >= _SMALLEST_SHARD),
        "channels": ("1 or more, and 1 or 3 with --resize", _channels_fit(settings)),
        "white": ("a number above --black", settings.levels is None or 0 < settings.levels.span < math.inf),
        "black": ("--white, too", settings.black is None or settings.white is not None),
        "workers": ("0 (one a core) or more", workers >= 0),
    }
    for name, (allowed, holds) in checks.items():
        if not holds:
            value = workers if name == "workers" else getattr(settings, name)
            raise UserError("writer.check_settings", f"{name} is {value}", f"give {allowed}")


def _channels_fit(settings: Settings) -> bool:
    return settings.channels in (1, 3) if settings.resize else settings.channels >= 1


def _check_out(src: str, out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError("writer.check_out", f"{out} is a file", "give a folder for the shards")
    source = Path(src).resolve()
    if source.is_dir() and (out.resolve() == source or source in out.resolve().parents):
        raise UserError("writer.check_out", f"{out} lies inside {src}", "give a folder for the shards elsewhere")
    # Hidden files do not count: a first plan that was cut off by a kill leaves no more than these. Nor does the list of
    # what was skipped, all that is left of a job that packed nothing.
    others = out.is_dir() and any(not entry.name.startswith(".") and entry.name != SKIPPED for entry in out.iterdir())
    if others and not (out / PLAN).exists():
        raise UserError("writer.check_out", f"{out} holds other files", "give a new folder")


def _check_classes(source: Source) -> None:
    """Refuse what `classes.txt`, UTF-8 and a line a class, cannot hold."""
    for name in source.classes or []:
        shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if shown != name:
            raise UserError(
                "writer.check_classes",
                f"the class {shown} has bytes in its name that are not UTF-8",
                "rename its folder",
            )
        if name.splitlines() != [name]:  # U+0085 and U+2028, too: other programs may end one there
            raise UserError(
                "writer.check_classes",
                f"the class {name!r} has a line break in its name",
                "rename its folder, or mend the table",
            )


@contextmanager
def _writing(out: Path, needed: int) -> Iterator[None]:
    """Name the folder and what to do where the system refuses to write."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            fix = f"free about {megabytes(needed)} and repeat the command: finished shards are kept"
            raise UserError("writer.writing", f"{out}: {error.strerror}", fix) from error
        if error.errno in _NOT_WRITABLE:
            raise UserError(
                "writer.writing", f"{out}: {error.strerror}", "give a folder that can be written"
            ) from error
        raise


# The plan


def _describe(source: Source, settings: Settings) -> dict[str, Any]:
    """What makes two jobs the same, as JSON."""
    return {"source": _digest(source), **settings._asdict()}


def _expected_bytes(out: Path, source: Source, settings: Settings) -> tuple[np.ndarray, int | None]:
    """Bytes of each image in its shard, int64 [n], and the mean that they were guessed from, None where they are known.

    A job that goes on keeps the guess it began with, because the plan hangs on it.
    """
    if (out / PLAN).exists():
        mean = _check_same(out, _describe(source, settings))
    else:
        mean = _mean_bytes(source, settings)
    return (source.sizes if mean is None and source.sizes is not None else np.full(len(source.names), mean)), mean


def _check_same(out: Path, job: dict[str, Any]) -> int | None:
    """Refuse to mix two jobs in a folder; returns the guess of the one that is there."""
    old = _load_json(out / PLAN)
    different = [name for name in job if job[name] != old.get("job", {}).get(name)]
    if different:
        fix = "repeat that command, give a new folder, or delete this one"
        raise UserError("writer.check_same", f"{out} holds another job: {', '.join(different)} differ", fix)
    return old["mean_bytes"]


def _begin(out: Path, source: Source, settings: Settings, mean: int | None) -> None:
    (out / RECORDS).mkdir(parents=True, exist_ok=True)
    _clear(out)
    if not (out / PLAN).exists():
        job = {"job": _describe(source, settings), "kind": source.kind, "images": len(source.names)}
        replace_text(out / PLAN, _to_json(job | {"mean_bytes": mean}))


def _clear(out: Path, seconds: float = STALE) -> None:
    for folder in (out, out / RECORDS):
        clear_unfinished(folder, seconds)


def _digest(source: Source) -> str:
    """A hash that differs where the names, sizes, labels or splits of the samples do."""
    digest = hashlib.sha256("\n".join(source.names).encode("utf-8", "surrogateescape"))
    for values in (source.labels, source.sizes, source.held_out):
        digest.update(b"none" if values is None else np.ascontiguousarray(values).tobytes())
    digest.update("\n".join(source.classes or []).encode("utf-8", "surrogateescape"))
    if source.sets is not None:
        digest.update(source.sets.count.tobytes() + source.sets.values.tobytes())
    return digest.hexdigest()


def _mean_bytes(source: Source, settings: Settings) -> int | None:
    """Expected bytes of an image, from a few spread over the source; None where the listing knows each."""
    if source.sizes is not None and settings.resize is None and settings.levels is None:
        return None
    sizes = []
    for row in np.unique(np.linspace(0, len(source.names) - 1, _PROBES).astype(int)).tolist():
        try:
            sizes.append(len(_encode(source.read, row, source.names[row], settings).data))
        except BadImage:
            continue
    return math.ceil(np.mean(sizes)) if sizes else BLOCK


# One shard


class _NoImage(Exception):
    """Gives up a shard in which no image decodes."""


def write_shard(job: Job, task: Task, tick: Callable[[], None]) -> None:
    """Write one shard, durably, then its record; one in which no image decodes is never there, and has a record.

    Several attempts at once are as good as one: what each renames into its place is the same.
    """
    record: dict[str, Any] = {}
    with suppress(_NoImage), replacing(job.out / task.shard) as making:
        with open(making, "wb") as stream:
            record |= _fill(stream, job, task, tick) | {"bytes": 0}
        if not record["images"]:
            raise _NoImage
        record["bytes"] = making.stat().st_size
    replace_text(job.out / RECORDS / f"{task.shard}.json", _to_json(record))


def _fill(stream: BinaryIO, job: Job, task: Task, tick: Callable[[], None]) -> dict[str, Any]:
    from webdataset.writer import TarWriter  # it imports torch, which the command line's help must not wait for

    skipped: list[Skip] = []
    labels: Counter[int] = Counter()
    images = 0
    largest: list[int] = []
    value, square = np.zeros(job.settings.channels), np.zeros(job.settings.channels)
    with TarWriter(stream, user="", group="", mode=0o644, mtime=0, encoder=False, compress=False) as tar:
        for row, name, key, label in zip(task.rows, task.names, task.keys, task.labels, strict=True):
            try:
                stored = _encode(job.read, row, name, job.settings)
            except BadImage as error:
                skipped.append(Skip(name, str(error)))
            else:
                tar.write({"__key__": key, stored.suffix: stored.data})
                if label is not None:
                    tar.write({"__key__": key, label.suffix: label.text})
                labels.update((NONE,) if label is None else label.classes)
                images += 1
                largest += [] if stored.largest is None else [stored.largest]
                value, square = value + stored.moments.value, square + stored.moments.square
            tick()
    moments = {"value": value.tolist(), "square": square.tolist()}
    found = {"images": images, "labels": labels, "skipped": [s._asdict() for s in skipped], "moments": moments}
    return found | {"deep": len(largest), "largest": max(largest, default=0)}


def _is_done(out: Path, shard: str) -> bool:
    path = out / RECORDS / f"{shard}.json"
    if not path.exists():
        return False
    size = _load_json(path)["bytes"]
    return size == 0 or ((out / shard).is_file() and (out / shard).stat().st_size == size)


def _encode(read: Reader, row: int, name: str, settings: Settings) -> Stored:
    return encode(read(row, name), settings.resize, settings.quality, settings.channels, settings.levels)


# All shards


def _write_all(job: Job, tasks: list[Task], workers: int, engine: Engine) -> None:
    with progress("sharding", float(sum(len(task.rows) for task in tasks))) as advance:
        run_tasks(partial(write_shard, job), tasks, advance, workers, engine, preload=(__name__, "webdataset"))


def _check_done(out: Path, tasks: list[Task]) -> None:
    """Refuse to report what this machine does not see: a node may have written to a disk of its own."""
    lost = [task.shard for task in tasks if not _is_done(out, task.shard)]
    if lost:
        fix = "repeat the command; with --engine ray give a folder that all nodes share"
        raise UserError(
            "writer.check_done",
            f"{out} lacks {len(lost)} of {len(tasks)} shards that were written, such as {lost[0]}",
            fix,
        )


def _finish(out: Path, source: Source, tasks: list[Task]) -> dict[str, Any]:
    """Gather the records of all shards, save what belongs beside them, and tell the user."""
    records = {task.shard: _load_json(out / RECORDS / f"{task.shard}.json") for task in tasks}
    skipped = [skip._asdict() for skip in source.skipped]
    skipped += sorted(
        (skip for record in records.values() for skip in record["skipped"]), key=lambda skip: skip["name"]
    )
    replace_text(out / SKIPPED, "".join(json.dumps(skip) + "\n" for skip in skipped))
    if not any(record["images"] for record in records.values()):
        _take_back(out)
        what = f"none of {len(source.names):,} images decodes ({skipped[-1]['reason']})"
        raise UserError("writer.finish", what, f"see {out / SKIPPED} for the reasons")
    if source.classes is not None:
        replace_text(out / CLASSES, "".join(f"{name}\n" for name in source.classes))
    splits = {split: split_stats(split, records, source.classes) for split in ("train", "val")}
    stats = {"source": source.kind, "splits": splits, **channel_stats(records), **depth_stats(records)}
    stats |= {"skipped": len(skipped), "reasons": dict(Counter(skip["reason"] for skip in skipped).most_common())}
    replace_text(out / STATS, _to_json(stats))
    _clear(out, 0)
    report(out, stats)
    return {"out": str(out), **stats}


def _take_back(out: Path) -> None:
    """Remove the plan of a job that packed nothing, so that the corrected command is no other job in this folder.

    The records go first: without a plan, those left behind would count as another job's.
    """
    shutil.rmtree(out / RECORDS)
    (out / PLAN).unlink()


# JSON


def _to_json(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"


def _load_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError("writer.load_json", f"{path} is damaged", "delete the folder and begin again") from None
