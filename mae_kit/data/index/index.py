"""The index as a table of samples, in memory and on disk: one row each, arrays only, read by row number."""

import hashlib
import json
import logging
import os
import sys
import threading
import time
import weakref
import zlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt32
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from mae_kit.data.index.boxes import Boxes, Objects
from mae_kit.data.index.check import fault_of
from mae_kit.data.index.class_names import kept_apart
from mae_kit.data.index.class_sets import ClassSets
from mae_kit.data.index.file_names import FileNames, read_file_names
from mae_kit.data.index.masks import Masks
from mae_kit.data.index.sample_ids import Keys
from mae_kit.data.index.samples import Problem
from mae_kit.data.index.stats_file import packed_scale
from mae_kit.data.index.targets import Targets
from mae_kit.data.remote import filesystem
from mae_kit.data.remote.cache import READ_ONLY
from mae_kit.data.remote.store import Stamps, Store
from mae_kit.data.scale import Scale
from mae_kit.errors import BadImage, UserError
from mae_kit.files.durable import replacing, takes_files
from mae_kit.files.json_file import parse_json
from mae_kit.files.user_cache import user_cache
from mae_kit.parallel.processes import descriptors

log = logging.getLogger(__name__)

FILE, PARTS = "index.safetensors", ".index"
VERSION = 2
COLUMNS = {
    "offset": np.int64,
    "size": np.int64,
    "crc32": np.uint32,
    "label": np.int64,
    "width": np.int32,
    "height": np.int32,
}
EXTRAS: dict[str, Any] = {"sets": ClassSets, "masks": Masks, "targets": Targets, "boxes": Boxes}
_OPEN_SHARDS = 256


class Descriptor:
    """An open file; closed when the last reader lets go of it."""

    def __init__(self, number: int):
        self.number = number
        weakref.finalize(self, os.close, number)  # not __del__, which may come after the interpreter has let go of os


if sys.platform == "win32":
    _one_reader = threading.Lock()

    def read_at(file: Descriptor, size: int, offset: int) -> bytes:
        with _one_reader:
            os.lseek(file.number, offset, os.SEEK_SET)
            return os.read(file.number, size)
else:

    def read_at(file: Descriptor, size: int, offset: int) -> bytes:
        return os.pread(file.number, size, offset)


@dataclass(eq=False)
class Index:
    """Samples of a folder of shards, one row each, in the order of shards and of bytes.

    Attributes:
        folder: Where the shards lie; the cache of remote ones.
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
        sets: From the `.classes` members, of images that may have any number of classes; None where no shard of the
            folder has such, and each sample has one label at most.
        masks: Where the `.mask.png` members lie; None where no shard of the folder has such.
        targets: From the `.target.json` members; None where no shard of the folder has such.
        boxes: From the `.boxes.json` members; None where no shard of the folder has such.
        store: Brings remote shards into the folder; None where they lie in it.
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
    sets: ClassSets | None = field(default=None, init=False)
    masks: Masks | None = field(default=None, init=False)
    targets: Targets | None = field(default=None, init=False)
    boxes: Boxes | None = field(default=None, init=False)
    store: Store | None = field(default=None, init=False)
    _open: dict[int, Descriptor] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.shard)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "files"} | {"_open": {}}

    @cached_property
    def scale(self) -> Scale | None:
        """How values become model input, of images of more than 8 bits; may be replaced by that of a model.

        Raises:
            UserError: As `packed_scale`.
        """
        return packed_scale(self.folder, self.store)

    @property
    def fingerprint(self) -> str:
        """sha256 over what a run depends on: what the index holds, and the scale of images of more than 8 bits."""
        scale = self.scale
        return hashlib.sha256(f"{self.checksum}{scale}".encode()).hexdigest() if scale else self.checksum

    @cached_property
    def checksum(self) -> str:
        """sha256 over shard names, and sizes, offsets, checksums and labels of the samples."""
        digest = hashlib.sha256(json.dumps(self.shards).encode())
        for column in (self.shard, self.size, self.offset, self.crc32, self.label):
            digest.update(np.ascontiguousarray(column).data)
        for extra in self.extras.values():  # where there are none the same as before there were any
            digest.update(json.dumps(extra.names).encode() if isinstance(extra, Targets) else b"")
            for column in extra.columns.values():
                digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()

    @property
    def extras(self) -> dict[str, Any]:
        """Those of `EXTRAS` that the folder has."""
        return {name: extra for name in EXTRAS if (extra := getattr(self, name)) is not None}

    @cached_property
    def contents(self) -> dict[str, str]:
        """Of each shard a short hash of the sizes, checksums and labels of its samples: shows which one changed."""
        columns = [np.ascontiguousarray(column) for column in (self.size, self.crc32, self.label)]
        borders = pairwise(np.searchsorted(self.shard, np.arange(len(self.shards) + 1)).tolist())
        if self.masks is not None:
            columns += [np.ascontiguousarray(self.masks.size), np.ascontiguousarray(self.masks.crc32)]
        columns += [self.targets.values] if self.targets is not None else []
        parts = (
            b"".join([*(column[start:end].tobytes() for column in columns), *self._bytes_of_labels(start, end)])
            for start, end in borders
        )
        return {name: hashlib.sha256(part).hexdigest()[:16] for name, part in zip(self.shards, parts, strict=True)}

    def _bytes_of_labels(self, start: int, end: int) -> tuple[bytes, ...]:
        extras = [extra.take(slice(start, end)) for extra in (self.sets, self.boxes) if extra is not None]
        return tuple(column.tobytes() for extra in extras for column in extra.columns.values())

    @cached_property
    def files(self) -> FileNames:
        """The files that the samples were packed from, as far as files.csv next to the shards names them."""
        return read_file_names(self.folder)

    def file(self, row: int) -> str:
        """The file that a sample was packed from; empty where it is unknown."""
        return self.files.get((self.shards[int(self.shard[row])], self.keys[row]), "")

    def place(self, row: int) -> dict[str, str]:
        """Shard and key of a sample, and its file where that is known."""
        file = {"file": name} if (name := self.file(row)) else {}
        return {"shard": self.shards[int(self.shard[row])], "key": self.keys[row]} | file

    @property
    def multi_label(self) -> bool:
        """Whether images may have any number of classes."""
        return self.sets is not None

    @cached_property
    def class_count(self) -> int:
        """Lines of `classes.txt`; without it one more than the largest label."""
        values = self.label if self.sets is None else np.append(self.label, self.sets.values)
        return len(self.classes) if self.classes else 1 + int(values.max(initial=-1))

    def labeled(self) -> Int64[np.ndarray, " m"]:
        """Rows with a valid label, or with a set of classes, be it empty."""
        return np.flatnonzero(self.label >= 0 if self.sets is None else (self.label >= 0) | self.sets.known)

    def masked(self) -> Int64[np.ndarray, " m"]:
        """Rows with a mask."""
        return np.flatnonzero(self.masks.known) if self.masks is not None else np.empty(0, np.int64)

    def targeted(self) -> Int64[np.ndarray, " m"]:
        """Rows with a target."""
        return np.flatnonzero(self.targets.known) if self.targets is not None else np.empty(0, np.int64)

    def boxed(self) -> Int64[np.ndarray, " m"]:
        """Rows whose objects are known, be there none."""
        return np.flatnonzero(self.boxes.known) if self.boxes is not None else np.empty(0, np.int64)

    def labels(self, rows: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, " b"] | Bool[np.ndarray, "b k"]:
        """Of each row its label, -1 = none; in a multi-label set True for each class it has."""
        label = self.label[rows].astype(np.int64)
        if self.sets is None:
            return label
        hot = self.sets.take(rows).multi_hot(self.class_count)
        single = np.flatnonzero(label >= 0)
        hot[single, label[single]] = True
        return hot

    def read(self, row: int) -> bytes:
        """Read the bytes of one image, from any thread or process; what fails is tried again for half a minute.

        Raises:
            BadImage: They were read whole, twice, and are not the bytes that were indexed.
            UserError: They cannot be read: the disk, its server, or the server of a remote shard fails.
        """
        return self._read_member(int(self.shard[row]), int(self.offset[row]), int(self.size[row]), self.crc32[row])

    def read_mask(self, row: int) -> bytes:
        """Read the bytes of the mask of a sample that has one; otherwise as `read`."""
        assert self.masks is not None
        offset, size, crc32 = (column[row] for column in self.masks)
        return self._read_member(int(self.shard[row]), int(offset), int(size), crc32)

    def _read_member(self, shard: int, offset: int, size: int, crc32: np.uint32) -> bytes:
        if zlib.crc32(data := self._read_whole(shard, offset, size)) == crc32:
            return data
        self._open = {}
        if self.store is not None:
            self.store.forget(self.shards[shard])
        if zlib.crc32(data := self._read_whole(shard, offset, size)) != crc32:
            raise BadImage(f"checksum differs from the index: {self.shards[shard]} changed, or the disk fails")
        return data

    def _read_whole(self, shard: int, offset: int, size: int) -> bytes:
        """All bytes of a member; a file that cannot be read now is opened again."""
        for pause in (*filesystem.PAUSES, None):
            try:
                data = read_at(self._descriptor(shard), size, offset)
                if len(data) == size:
                    return data
                reason = f"it ends inside an image, {len(data)} of {size} bytes"
            except OSError as error:
                reason = error.strerror or str(error)
            self._open = {}
            if pause is None:
                what = f"{self.shards[shard]} in {self.folder} cannot be read ({reason})"
                raise UserError("data.read", what, "check its disk or server; a run resumes with --resume")
            time.sleep(pause)
        raise AssertionError

    def ahead(self, shards: Sequence[int]) -> None:
        """Begin to fetch remote shards that will soon be read, in this order, instead of those asked for before."""
        if self.store is not None:
            self.store.ahead([(self.shards[shard], partial(self._damaged, shard)) for shard in shards])

    def check_mix_shards(self, mix_shards: int) -> None:
        """Refuse an order of the samples in which remote shards would be fetched again and again.

        Args:
            mix_shards: How many are mixed at a time; 0 = all.

        Raises:
            UserError: Names a number that fits.
        """
        if self.store is not None:
            self.store.check_capacity(self.shards, mix_shards)

    def _damaged(self, shard: int, file: Path) -> int:
        """How many samples of a shard are not the bytes that were indexed."""
        first, last = np.searchsorted(self.shard, [shard, shard + 1])
        found = 0
        with open(file, "rb") as opened:
            for row in range(first, last):
                opened.seek(self.offset[row])
                found += zlib.crc32(opened.read(self.size[row])) != self.crc32[row]
        return int(found)

    def _descriptor(self, shard: int) -> Descriptor:
        if self.store is not None:  # for one read: an open file would keep the room that another shard was given
            return Descriptor(self.store.open(self.shards[shard], partial(self._damaged, shard)))
        found = self._open.get(shard)
        if found is None:
            if len(self._open) >= min(_OPEN_SHARDS, descriptors() // 4):
                self._open = {}
            found = self._open[shard] = Descriptor(os.open(self.folder / self.shards[shard], READ_ONLY))
        return found

    def pieces(self, most: int | None = None) -> list[tuple[str, slice]]:
        """Shards with their rows, each as often as it takes for pieces of at most so many samples."""
        step = most or len(self) or 1
        borders = pairwise(np.searchsorted(self.shard, np.arange(len(self.shards) + 1)).tolist())
        return [
            (name, slice(first, min(first + step, end)))
            for name, (start, end) in zip(self.shards, borders, strict=True)
            for first in range(start, max(end, start + 1), step)
        ]

    def apart(self, most: int | None = None) -> list["Index"]:
        """Of each shard, or piece of one, an index of its own, light enough to travel to another process."""
        problems: dict[str, list[Problem]] = defaultdict(list)
        for problem in self.problems:
            problems[problem.shard].append(problem)
        return [self._only(name, rows, problems[name]) for name, rows in self.pieces(most)]

    def _only(self, name: str, rows: slice, problems: list[Problem]) -> "Index":
        part = self._part([name], np.zeros_like(self.shard[rows]), rows, self.keys[rows].alone(), problems)
        if part.sets is not None and not part.sets.known.any():
            part.sets = None
        return part

    def within(self, shards: Collection[str]) -> "Index":
        """The part in some shards, given by their names."""
        names = set(shards)
        kept = [number for number, name in enumerate(self.shards) if name in names]
        if len(kept) == len(self.shards):
            return self
        rows = np.flatnonzero(np.isin(self.shard, kept))
        shard = np.searchsorted(kept, self.shard[rows]).astype(np.int32)
        problems = [problem for problem in self.problems if problem.shard in names]
        return self._part([self.shards[number] for number in kept], shard, rows, self.keys.take(rows), problems)

    def _part(
        self, shards: list[str], shard: np.ndarray, rows: np.ndarray | slice, keys: Keys, problems: list[Problem]
    ) -> "Index":
        columns = {name: getattr(self, name)[rows] for name in COLUMNS}
        part = Index(self.folder, shards, shard, **columns, keys=keys, classes=self.classes, problems=problems)
        part.store = self.store
        if "scale" in vars(self):  # known, or replaced; otherwise the part reads it when it is asked for
            part.scale = self.scale
        for name, extra in self.extras.items():
            setattr(part, name, extra.take(rows))
        return part


# The file


def load(path: Path, base: Path) -> tuple[Stamps, Index | None]:
    """Read an index; one that is damaged, contradicts itself or is of another version counts as none."""
    try:
        with safe_open(path, "numpy") as file:
            head = parse_json((file.metadata() or {})["mae_kit_index"].encode())
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if head["version"] != VERSION:
            raise ValueError("another version of mae_kit wrote it")
        if fault := fault_of(head, arrays, COLUMNS):
            raise ValueError(fault)
        found = Index(
            folder=base,
            shards=list(head["stamps"]),
            shard=arrays["shard"],
            keys=Keys(arrays["key_letters"], arrays["key_start"], arrays["key_stop"]),
            classes=head["classes"] and kept_apart(head["classes"]),
            problems=[Problem(*problem) for problem in head["problems"]],
            **{name: arrays[name] for name in COLUMNS},
        )
        found.masks = Masks(*(arrays[f"mask_{name}"] for name in Masks._fields)) if "mask_size" in arrays else None
        found.sets = ClassSets(arrays["class_count"], arrays["class_values"]) if "class_count" in arrays else None
        found.targets = Targets(head["targets"], arrays["target"]) if "target" in arrays else None
        if "box_count" in arrays:
            found.boxes = Boxes(arrays["box_count"], Objects(*(arrays[f"box_{name}"] for name in Objects._fields)))
        stamps = {name: (int(size), int(changed)) for name, (size, changed) in head["stamps"].items()}
        if head["fingerprint"] != found.checksum:
            raise ValueError("damaged")
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        reason = str(error) if type(error) is ValueError else "no index of this version"
        log.warning(f"{path} is not used: {reason[:160]}")
        return {}, None
    return stamps, found


def save(whole: Index, stamps: Stamps) -> Path:
    """Write next to the shards, or into the user's cache where that folder is read-only; returns the path.

    Raises:
        OSError: Neither takes it; nothing is left behind.
    """
    if takes_files(whole.folder):
        try:
            return write(whole.folder / FILE, whole, stamps)
        except OSError:
            pass  # full or read-only in a way its permissions do not show: the cache may be on another disk
    return write(cache_file(whole.folder), whole, stamps)


def write(path: Path, whole: Index, stamps: Stamps, flush: bool = True) -> Path:
    head = {
        "version": VERSION,
        "stamps": stamps,
        "classes": whole.classes,
        "problems": whole.problems,
        "targets": whole.targets.names if whole.targets is not None else [],
        "fingerprint": whole.checksum,
    }
    arrays = {name: getattr(whole, name) for name in ("shard", *COLUMNS)}
    arrays |= {"key_letters": whole.keys.letters, "key_start": whole.keys.start, "key_stop": whole.keys.stop}
    for extra in whole.extras.values():
        arrays |= extra.columns
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, flush) as making:
        making.write_bytes(to_safetensors(arrays, {"mae_kit_index": json.dumps(head)}))
    return path


def parts_folder(base: Path) -> Path:
    """Where the indices of single shards lie until that of the folder is made."""
    return base / PARTS if takes_files(base) else cache_file(base).with_suffix(".parts")


def cache_file(base: Path) -> Path:
    return cache_path("index", base).with_suffix(".safetensors")


def cache_path(what: str, base: Path) -> Path:
    """Return the place in the user's cache for a file that belongs next to the shards of a folder."""
    name = hashlib.sha256(os.fsencode(base.resolve())).hexdigest()[:16]
    return user_cache() / f"{what}-{name}"
