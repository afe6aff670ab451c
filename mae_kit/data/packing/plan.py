"""Which sample goes to which shard, decided up front from keyed hashes of the samples' names."""

import hashlib
import json
import os
from functools import cache
from typing import NamedTuple

import numpy as np

from mae_kit.data.decode import IGNORED, MAX_PIXELS
from mae_kit.data.index.samples import CLASSES_SUFFIX, LABEL_SUFFIX, TARGET_SUFFIX
from mae_kit.data.packing.boxes import Annotation
from mae_kit.data.packing.several import Pages
from mae_kit.data.packing.source import Source
from mae_kit.data.scale import Method
from mae_kit.errors import UserError

# tar: a member is a header block and whole blocks of data; a file ends on a whole record.
BLOCK, RECORD = 512, 10_240
# Small sets are cut up to this often, at no fewer samples each, so that several workers have something to do.
_PIECES, _SAMPLES_A_PIECE = 32, 256
_A_BOX = 40  # bytes
PERCENTILE = "percentile"


class PackSettings(NamedTuple):
    """What decides the bytes of the shards, apart from the source; the fields are `shard`'s arguments."""

    resize: int | None = None
    quality: int = 90
    val_fraction: float = 0.0
    max_shard_size: int = 256_000_000
    seed: int = 0
    labels: str = "auto"
    channels: int | None = None
    max_pixels: int = MAX_PIXELS
    ignore: int = IGNORED
    scale: str = PERCENTILE
    nodata: float | None = None
    bands: tuple[str, ...] = ()
    pages: Pages = "first"
    group: str | None = None

    @property
    def method(self) -> Method:
        """How the values that become 0 and 1 are chosen."""
        return "given" if self.ends else self.scale  # type: ignore[return-value]

    @property
    def ends(self) -> tuple[float, float] | None:
        """The two values, where the user gives them."""
        numbers = self.scale.split(",")
        return (float(numbers[0]), float(numbers[1])) if len(numbers) == 2 else None


class Label(NamedTuple):
    """The member that says what an image shows.

    Attributes:
        suffix: Of its name.
        text: Its content.
        classes: One; or, of a multi-label set, any number.
    """

    suffix: str
    text: bytes
    classes: tuple[int, ...] = ()

    @classmethod
    def of(cls, suffix: str, classes: tuple[int, ...]) -> "Label":
        return cls(suffix, " ".join(map(str, classes)).encode(), classes)


class ShardTask(NamedTuple):
    """One shard to write: its file name and the samples in it, in order; "" is the name of no mask."""

    shard: str
    rows: list[int]
    names: list[str]
    keys: list[str]
    labels: list[Label | None]
    masks: list[str]
    boxes: list[Annotation | None]


def plan(source: Source, settings: PackSettings, sizes: np.ndarray) -> list[ShardTask]:
    """Assign every sample to a shard.

    Args:
        source: The listing, n samples.
        settings: Of these seed, val_fraction and max_shard_size count.
        sizes: int64 [n], bytes of each image in the shard, as known or expected.

    Raises:
        UserError: val_fraction leaves no sample for train or for val.
    """
    drawn = draws(source.names, settings.seed)
    held_out = source.held_out if source.held_out is not None else drawn[:, 0] / 2**64 < settings.val_fraction
    if settings.val_fraction and (held_out.all() or not held_out.any()):
        what = f"{held_out.sum()} of {len(held_out)} images are drawn for val"
        raise UserError("shard.val_fraction.empty", what, "change --val-fraction or --seed, or add images")
    order = np.argsort(drawn[:, 1], kind="stable")
    labels = _labels(source)
    costs = BLOCK * (1 + -(-sizes // BLOCK)) + np.array([_cost(len(label.text)) if label else 0 for label in labels])
    if source.boxes:
        costs += np.array([_cost(len(one.label) * _A_BOX) if one else 0 for one in source.boxes])
    keys = source.keys or _numbers(len(source.names))
    tasks = []
    for split, flag in (("train", False), ("val", True)):
        rows = order[held_out[order] == flag]
        parts = np.split(rows, _cuts(costs[rows], settings.max_shard_size))
        tasks += [
            _task(f"{split}-{i:06d}.tar", part, source, keys, labels) for i, part in enumerate(parts) if len(part)
        ]
    return tasks


def draws(names: list[str], seed: int) -> np.ndarray:
    """uint64 [n 2], even over all values: one number that decides on val and one for the order.

    A hash of the name, so that adding images to the source moves none from train to val.
    """
    key = seed.to_bytes(16, "little", signed=True)
    digests = (hashlib.blake2b(os.fsencode(name), digest_size=16, key=key).digest() for name in names)
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)


def _numbers(n: int) -> list[str]:
    """Keys: the place in the source's order, so that a sample can be traced back to its file."""
    width = max(6, len(str(n - 1)))
    return [f"{i:0{width}d}" for i in range(n)]


def _cuts(costs: np.ndarray, max_size: int) -> list[int]:
    """Where to cut a row of samples so that no shard of two or more is larger than max_size bytes."""
    if not len(costs):
        return []
    pieces = min(_PIECES, max(1, len(costs) // _SAMPLES_A_PIECE))
    limit = min(max_size - RECORD, costs.sum() / pieces + costs.mean())
    cuts, used = [], 0
    for i, cost in enumerate(costs.tolist()):
        if used and used + cost > limit:
            cuts.append(i)
            used = 0
        used += cost
    return cuts


def _labels(source: Source) -> list[Label | None]:
    """Of each sample; one with a single label has that also where others have sets."""
    if source.targets is not None:
        return [None if each is None else Label(TARGET_SUFFIX, json.dumps(each).encode()) for each in source.targets]
    made = cache(Label.of)  # of a million images, most show what others show
    single = [made(LABEL_SUFFIX, (label,)) if label >= 0 else None for label in source.labels.tolist()]
    if source.sets is None:
        return single
    sets = source.sets.tolist()
    return [own if each is None else made(CLASSES_SUFFIX, each) for own, each in zip(single, sets, strict=True)]


def _cost(size: int) -> int:
    """Bytes of a member in the shard."""
    return BLOCK * (1 + -(-size // BLOCK))


def _task(name: str, rows: np.ndarray, source: Source, keys: list[str], labels: list[Label | None]) -> ShardTask:
    places = rows.tolist()
    names, taken = [source.names[i] for i in places], [keys[i] for i in places]
    masks = [source.masks[i] if source.masks else "" for i in places]
    boxes = [source.boxes[i] if source.boxes else None for i in places]
    return ShardTask(name, places, names, taken, [labels[i] for i in places], masks, boxes)
