"""Pack images into webdataset shards: planned by arithmetic, written shard by shard, finished by whoever comes again.

Which sample goes to which shard is decided up front from keyed hashes of the samples' names. So the shards are the
same bytes for any number of workers and any number of interruptions, and a shard that is done is not written again.
"""

import hashlib
import json
import logging
import math
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from errno import EACCES, EDQUOT, EFBIG, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR, EPERM, EROFS
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from mae_kit.console import progress
from mae_kit.data.index.class_names import FILE as CLASSES
from mae_kit.data.index.file_names import write_file_names
from mae_kit.data.index.statistics import FILE as STATS
from mae_kit.data.packing.deep import Depth, find_depth
from mae_kit.data.packing.plan import BLOCK, PackSettings, ShardTask, plan
from mae_kit.data.packing.source import Source
from mae_kit.data.packing.stats import SKIPPED, box_stats, channel_stats, deep_stats, megabytes, split_stats
from mae_kit.data.packing.writer import (
    RECORDS,
    PackJob,
    ShardRecord,
    encode_sample,
    is_done,
    load_json,
    to_json,
    write_shard,
)
from mae_kit.data.scale import Kind
from mae_kit.errors import BadImage, UserError
from mae_kit.files.durable import STALE, clear_unfinished, replace_text
from mae_kit.parallel import Engine, run_tasks

log = logging.getLogger(__name__)

PLAN = "shards.json"
SMALLEST_SHARD = 65_536

_FULL = (ENOSPC, EDQUOT, EFBIG)
_NOT_WRITABLE = (EACCES, EPERM, EROFS, ENOENT, ENOTDIR, ENAMETOOLONG)
_PROBES = 64


def pack_source(
    source: Source, out: Path, settings: PackSettings, workers: int = 0, engine: Engine = "processes"
) -> dict[str, Any]:
    """Write the shards of a source; a job that was stopped resumes.

    Args:
        source: What to pack.
        out: Folder for the shards: a new one, or that of the same job stopped before.
        settings: All that decides the bytes of the shards.
        workers: Shards written at once; 0 = one per core.
        engine: Where they are written.

    Returns:
        What stats.json holds, and `out`.

    Raises:
        UserError: Another job in `out`, no space left, no image that decodes, and the like.
    """
    source = _without_ignored(source, settings.ignore)
    _check_classes(source)
    guess = _guess(out, source, settings)
    sizes = source.sizes if guess.mean is None else None
    if sizes is None:
        sizes = np.full(len(source.names), guess.mean or BLOCK)
    tasks = plan(source, settings, sizes)
    with _writing(out, int(sizes.sum())):
        _begin(out, source, settings, guess)
    todo = [task for task in tasks if not is_done(out, task.shard)]
    if len(todo) < len(tasks):
        log.info("%d of %d shards are packed already", len(tasks) - len(todo), len(tasks))
    needed = sum(int(sizes[row]) for task in todo for row in task.rows)
    with _writing(out, needed):
        _write_all(
            PackJob(out, settings, source.read, guess.channels, guess.depth, len(source.classes or ()), source.binary),
            todo,
            workers,
            engine,
        )
        _check_done(out, tasks)
        return _finish(out, source, tasks, settings, guess.depth)


# Checks


def _without_ignored(source: Source, ignore: int) -> Source:
    """The source without the name of what is ignored, where that is the last of the classes of masks."""
    if source.masks is None or not source.classes or ignore != len(source.classes) - 1:
        return source
    return replace(source, classes=source.classes[:-1])


def _check_classes(source: Source) -> None:
    """Refuse what `classes.txt`, UTF-8 and a line a class, cannot hold."""
    for name in source.classes or []:
        shown = name.encode("utf-8", "backslashreplace").decode()
        if shown != name:
            raise UserError(
                "shard.classes.utf8", f"the class {shown} has bytes in its name that are not UTF-8", "rename its folder"
            )
        if name.splitlines() != [name]:  # U+0085 and U+2028, too: other programs may end one there
            raise UserError(
                "shard.classes.line_break",
                f"the class {name!r} has a line break in its name",
                "rename its folder, or correct the table",
            )


@contextmanager
def _writing(out: Path, needed: int) -> Iterator[None]:
    """Name the folder and what to do where the system refuses to write."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            fix = f"free about {megabytes(max(needed, 100_000))} and repeat the command: finished shards are kept"
            raise UserError("shard.out.full", f"{out}: {error.strerror}", fix) from error
        if error.errno in _NOT_WRITABLE:
            raise UserError(
                "shard.out.read_only", f"{out}: {error.strerror}", "give a folder that can be written"
            ) from error
        raise


# The plan


def _describe(source: Source, settings: PackSettings) -> dict[str, Any]:
    """What makes two jobs the same, as JSON."""
    return {"source": _digest(source), **settings._asdict(), "bands": list(settings.bands)}


class _Held(TypedDict):
    kind: Kind
    bands: int
    nodata: float | None
    names: list[str]


class _Plan(TypedDict):
    job: dict[str, Any]
    mean_bytes: int | None
    channels: int
    depth: _Held | None


class _Guess(NamedTuple):
    """What is found by looking at some images; a job that resumes keeps it, since the shards follow from it.

    Attributes:
        mean: Bytes of an image in its shard; None where the listing knows each.
        channels: Of images of 8 bits.
        depth: What images of more than 8 bits hold.
    """

    mean: int | None
    channels: int
    depth: Depth | None


def _guess(out: Path, source: Source, settings: PackSettings) -> _Guess:
    if (out / PLAN).exists():
        old = _check_same(out, _describe(source, settings))
        return _Guess(old["mean_bytes"], old["channels"], Depth(**old["depth"]) if old["depth"] else None)
    rows = np.unique(np.linspace(0, len(source.names) - 1, _PROBES).astype(int)).tolist()
    images = [partial(source.read, row, source.names[row]) for row in rows]
    channels, depth = find_depth(images, settings)
    _check_depth(settings, channels, depth, len(rows))
    return _Guess(_mean_bytes(source, rows, settings, channels, depth), channels, depth)


def _check_depth(settings: PackSettings, channels: int, depth: Depth | None, looked: int) -> None:
    """Refuse what has no effect on images of 8 bits, or no meaning."""
    if depth:
        return
    if settings.resize and channels not in (1, 3):
        what = f"--resize stores 8-bit images as JPEG, which cannot hold {channels} channels"
        raise UserError("shard.channels.resize", what, "leave out --resize, or give --channels 3")
    for name in ("scale", "nodata", "bands"):
        if getattr(settings, name) != PackSettings._field_defaults[name]:
            what = f"most of the {looked} images examined have no more than 8 bits, so --{name} has no effect"
            raise UserError(f"shard.{name}.8_bits", what, "leave it out")


def _check_same(out: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Refuse to mix two jobs in a folder; returns the plan of the one that is there."""
    old = load_json(out / PLAN, _Plan)
    different = [name for name in job if job[name] != old["job"].get(name)]
    if different:
        fix = "repeat that command, give a new folder, or delete this one"
        raise UserError(
            "shard.other_job", f"{out} holds the shards of another command: {', '.join(different)} differ", fix
        )
    return old


def _begin(out: Path, source: Source, settings: PackSettings, guess: _Guess) -> None:
    (out / RECORDS).mkdir(parents=True, exist_ok=True)
    _clear(out)
    if not (out / PLAN).exists():
        depth = guess.depth._asdict() if guess.depth else None
        job = {"job": _describe(source, settings), "kind": source.kind, "images": len(source.names)}
        replace_text(out / PLAN, to_json(job | {"mean_bytes": guess.mean, "channels": guess.channels, "depth": depth}))


def _clear(out: Path, seconds: float = STALE) -> None:
    for folder in (out, out / RECORDS):
        clear_unfinished(folder, seconds)


def _digest(source: Source) -> str:
    """A hash that differs where the names, sizes, labels or splits of the samples do."""
    digest = hashlib.sha256("\n".join(source.names).encode("utf-8", "surrogateescape"))
    for values in (source.labels, source.sizes, source.held_out):
        digest.update(b"none" if values is None else np.ascontiguousarray(values).tobytes())
    digest.update("\n".join(source.classes or []).encode("utf-8", "surrogateescape"))
    if source.masks is not None:
        digest.update("\n".join(source.masks).encode("utf-8", "surrogateescape"))
    if source.targets is not None:
        digest.update(json.dumps(source.targets).encode())
    if source.boxes is not None:
        digest.update(json.dumps(source.boxes).encode())
    if source.sets is not None:
        digest.update(source.sets.count.tobytes() + source.sets.values.tobytes())
    return digest.hexdigest()


def _mean_bytes(
    source: Source, rows: list[int], settings: PackSettings, channels: int, depth: Depth | None
) -> int | None:
    """Expected bytes of an image, from a few spread over the source; None where the listing knows each."""
    if source.sizes is not None and settings.resize is None and not depth:
        return None
    sizes = []
    for row in rows:
        with suppress(BadImage):
            stored = encode_sample(source.read, row, source.names[row], settings, channels, depth)
            sizes.append(len(stored.data))
    return math.ceil(np.mean(sizes)) if sizes else BLOCK


# All shards


def _write_all(job: PackJob, tasks: list[ShardTask], workers: int, engine: Engine) -> None:
    with progress("sharding", float(sum(len(task.rows) for task in tasks))) as advance:
        run_tasks(partial(write_shard, job), tasks, advance, workers, engine, preload=(__name__, "webdataset"))


def _check_done(out: Path, tasks: list[ShardTask]) -> None:
    """Refuse to report what this machine does not see: a node may have written to a disk of its own."""
    lost = [task.shard for task in tasks if not is_done(out, task.shard)]
    if lost:
        fix = "repeat the command; with --engine ray give a folder that all nodes share"
        raise UserError(
            "shard.lost", f"{out} lacks {len(lost)} of {len(tasks)} shards that were written, such as {lost[0]}", fix
        )


def _finish(
    out: Path, source: Source, tasks: list[ShardTask], settings: PackSettings, depth: Depth | None
) -> dict[str, Any]:
    """Gather the records of all shards, save the files that describe them."""
    records = {task.shard: load_json(out / RECORDS / f"{task.shard}.json", ShardRecord) for task in tasks}
    skipped = [skip._asdict() for skip in source.skipped]
    skipped += sorted(
        (skip for record in records.values() for skip in record["skipped"]), key=lambda skip: skip["name"]
    )
    replace_text(out / SKIPPED, "".join(json.dumps(skip) + "\n" for skip in skipped))
    if not any(record["images"] for record in records.values()):
        _take_back(out)
        what = f"none of {len(source.names):,} images decodes ({skipped[-1]['reason']})"
        raise UserError("shard.nothing", what, f"see {out / SKIPPED} for the reasons")
    classes = _numbered(records) if source.masks is not None and source.classes is None else source.classes
    if classes is not None:
        replace_text(out / CLASSES, "".join(f"{name}\n" for name in classes))
    if source.keys is None:
        write_file_names(out, ((t.shard, *sample) for t in tasks for sample in zip(t.keys, t.names, strict=True)))
    splits = {split: split_stats(split, records, classes) for split in ("train", "val")}
    stats = {"source": source.kind, "splits": splits}
    stats |= deep_stats(records, settings, depth) if depth else channel_stats(records)
    stats |= {"boxes": box_stats(records)} if source.boxes is not None else {}
    stats |= {"skipped": len(skipped), "reasons": dict(Counter(skip["reason"] for skip in skipped).most_common())}
    replace_text(out / STATS, to_json(stats))
    _clear(out, 0)
    return {"out": str(out), **stats}


def _numbered(records: dict[str, dict[str, Any]]) -> list[str]:
    """Names for the classes of masks that have none: their numbers."""
    largest = max(int(label) for record in records.values() for label in record["labels"])
    return [str(label) for label in range(largest + 1)]


def _take_back(out: Path) -> None:
    """Remove the plan of a job that packed nothing, so that the corrected command is no other job in this folder.

    The records go first: without a plan, those left behind would count as another job's.
    """
    shutil.rmtree(out / RECORDS)
    (out / PLAN).unlink()
