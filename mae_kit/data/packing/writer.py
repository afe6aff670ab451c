"""One shard, written durably, and the record of what is in it."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypedDict

import numpy as np

from mae_kit.data.index.listing import Skip
from mae_kit.data.index.samples import BOXES_SUFFIX, MASK_SUFFIX
from mae_kit.data.packing.bands import BandSums
from mae_kit.data.packing.boxes import encode_objects
from mae_kit.data.packing.deep import Depth, encode_deep
from mae_kit.data.packing.encode import Stored, encode
from mae_kit.data.packing.mask import encode_mask
from mae_kit.data.packing.plan import PackSettings, ShardTask
from mae_kit.data.packing.source import Reader
from mae_kit.data.packing.stats import NONE
from mae_kit.errors import BadImage
from mae_kit.files.durable import replace_text, replacing
from mae_kit.files.json_file import read_json

RECORDS = ".shards"


class _Skip(TypedDict):
    name: str
    reason: str


class _Moments(TypedDict):
    value: list[float]
    square: list[float]


class ShardRecord(TypedDict):
    """What is in a shard."""

    images: int
    labels: dict[str, int]
    skipped: list[_Skip]
    moments: _Moments
    boxes: dict[str, int]
    bands: dict[str, Any]
    bytes: int


class PackJob(NamedTuple):
    """What a worker needs to write any shard.

    Attributes:
        out: Folder of the shards.
        settings: Of the job.
        read: Returns the bytes of a sample or mask.
        channels: Of images of 8 bits.
        depth: Of the dataset, where it has more than 8 bits.
        classes: Number of classes of masks; 0 where it is not known.
        binary: As of the source.
    """

    out: Path
    settings: PackSettings
    read: Reader
    channels: int
    depth: Depth | None = None
    classes: int = 0
    binary: bool = False


class _NoImage(Exception):
    """Gives up a shard in which no image decodes."""


def write_shard(job: PackJob, task: ShardTask, tick: Callable[[], None]) -> None:
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
    replace_text(job.out / RECORDS / f"{task.shard}.json", to_json(record))


def _fill(stream: BinaryIO, job: PackJob, task: ShardTask, tick: Callable[[], None]) -> dict[str, Any]:
    from webdataset.writer import TarWriter  # it imports torch, which the command line's help must not wait for

    skipped: list[Skip] = []
    labels: Counter[int] = Counter()
    boxes: Counter[str] = Counter()
    images = 0
    bands = BandSums(job.depth.bands, len(task.rows)) if job.depth else None
    value, square = np.zeros(job.channels), np.zeros(job.channels)
    with TarWriter(stream, user="", group="", mode=0o644, mtime=0, encoder=False, compress=False) as tar:
        for place, (row, name, key) in enumerate(zip(task.rows, task.names, task.keys, strict=True)):
            try:
                stored = encode_sample(job.read, row, name, job.settings, job.channels, job.depth)
                about = _about(job, task, place, stored)
            except BadImage as error:
                skipped.append(Skip(name, str(error)))
            else:
                tar.write({"__key__": key, stored.suffix: stored.data})
                for suffix, content in about.members.items():
                    tar.write({"__key__": key, suffix: content})
                labels.update(about.classes)
                most = max(boxes["most"], about.boxes["objects"])
                boxes.update(about.boxes)
                boxes["most"] = most
                images += 1
                skipped += [Skip(name, stored.left_out)] if stored.left_out else []
                if bands and stored.values is not None and job.depth:
                    bands.add(stored.values, job.depth.nodata)
                elif stored.moments:
                    value, square = value + stored.moments.value, square + stored.moments.square
            tick()
    moments = {"value": value.tolist(), "square": square.tolist()}
    found = {"images": images, "labels": labels, "skipped": [s._asdict() for s in skipped], "moments": moments}
    return found | {"boxes": boxes, "bands": bands.record() if bands else {}}


class _About(NamedTuple):
    """What a shard says of an image: members by suffix, the classes it shows, and counts of its boxes."""

    members: dict[str, bytes]
    classes: Sequence[int]
    boxes: Counter[str]


def _about(job: PackJob, task: ShardTask, place: int, stored: Stored) -> _About:
    label, mask, boxes = task.labels[place], task.masks[place], task.boxes[place]
    row, name, most = task.rows[place], task.names[place], job.settings.max_pixels
    members = {} if label is None else {label.suffix: label.text}
    if mask:
        ignored = job.settings.ignore, job.classes
        found = encode_mask(job.read(row, mask), job.read(row, name), stored.data, *ignored, most, job.binary)
        return _About(members | {MASK_SUFFIX: found.data}, found.present, Counter())
    if boxes is not None:
        objects, counts = encode_objects(boxes, job.read(row, name), stored.data, most)
        counts |= Counter(objects=len(objects.label), background=int(not len(objects.label)))
        return _About(members | {BOXES_SUFFIX: objects.to_json()}, np.unique(objects.label).tolist(), counts)
    return _About(members, (NONE,) if label is None else label.classes, Counter())


def is_done(out: Path, shard: str) -> bool:
    path = out / RECORDS / f"{shard}.json"
    if not path.exists():
        return False
    size = load_json(path, ShardRecord)["bytes"]
    return size == 0 or ((out / shard).is_file() and (out / shard).stat().st_size == size)


def encode_sample(
    read: Reader, row: int, name: str, settings: PackSettings, channels: int, depth: Depth | None
) -> Stored:
    data = read(row, name)
    if depth:
        return encode_deep(data, settings, depth)
    return encode(data, settings.resize, settings.quality, channels, settings.max_pixels)


def to_json(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"


def load_json(path: Path, kind: Any) -> dict[str, Any]:
    """Read what an earlier command wrote into the folder of shards.

    Raises:
        UserError: It is damaged.
    """
    return read_json(path, "shard.damaged", "delete the folder and begin again", kind)
