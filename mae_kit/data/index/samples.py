"""One shard to its samples: members paired by key over the whole tar, and everything odd written down.

A `.cls` member holds the one label of an image, a `.classes` member any number of them, a `.mask.png` member the class
of each pixel, a `.target.json` member numbers by name, a `.boxes.json` member objects.
Keys follow webdataset: the name up to the first dot of its last part is the key, the rest the suffix. Numbers between
two dots belong to the key (`22.05.jpg`, `photo.1.jpg`). Words between them tell what a member is: other targets are
left out and reported, as are members next to a plain image; without one, `KEY.image.jpg` is the image of KEY.
"""

import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from io import BufferedIOBase, BufferedReader, FileIO
from pathlib import Path
from typing import Any, NamedTuple

from mae_kit.data.decode import (
    IMAGE_SUFFIXES,
    OTHER_IMAGES,
    decode,
    decode_mask,
    decode_raw,
    image_size,
    is_array,
    is_dark,
)
from mae_kit.data.index import tar
from mae_kit.data.index.boxes import Objects, parse_objects
from mae_kit.data.index.masks import Place
from mae_kit.data.index.targets import Target, parse_target
from mae_kit.data.jpeg import cut_short
from mae_kit.errors import BadImage

LABEL_SUFFIX = "cls"
MASK_SUFFIX = "mask.png"
TARGET_SUFFIX = "target.json"
BOXES_SUFFIX = "boxes.json"
CLASSES_SUFFIX = "classes"  # a suffix of its own, because webdataset itself reads `cls` as one integer
DARK = "dark images of 16 bits"
LARGEST_IMAGE = 1 << 29
SECOND = "a second"  # begins the reason of a member that another one of its key replaces
_TARGETS = {"mask", "masks", "seg", "segmentation", "label", "labels", "depth", "gt", "annotation", "normal", "edge"}
_TARGETS |= {"target", "targets", "annotations", "instance", "instances", "semantic", "panoptic", "trimap", "disparity"}
_KINDS = {  # what members are called, and their largest size
    LABEL_SUFFIX: ("label", 1 << 10),
    CLASSES_SUFFIX: ("set of classes", 1 << 16),
    MASK_SUFFIX: ("mask", LARGEST_IMAGE),
    TARGET_SUFFIX: ("target", 1 << 16),
    BOXES_SUFFIX: ("boxes", 1 << 24),
}
_CLASSES = 1 << 16  # without classes.txt: a batch has a column for each
_LABELS = 1 << 31


class Problem(NamedTuple):
    """One odd thing: in which shard, of which key (may be empty), at which byte, and why (`kind: detail`)."""

    shard: str
    key: str
    offset: int
    reason: str

    @property
    def kind(self) -> str:
        return self.reason.partition(":")[0]


class Sample(NamedTuple):
    """One image of a shard; without a valid label `label` is -1, without the others they are None."""

    key: str
    offset: int
    size: int
    crc32: int
    label: int
    width: int
    height: int
    classes: tuple[int, ...] | None = None
    mask: Place | None = None
    target: Target | None = None
    objects: Objects | None = None


class _Found(NamedTuple):
    """A member of interest: read once as the shard streams by, judged when all keys are known."""

    key: str
    offset: int
    size: int = 0
    crc32: int = 0
    width: int = 0
    height: int = 0
    value: Any = None  # label, classes, place of a mask, target, or objects
    fault: str = ""
    dark: bool | None = None  # of images of more than 8 bits


class _Dotted(NamedTuple):
    """A member with words between its key and its suffix."""

    key: str
    words: str
    suffix: str
    found: _Found


class _Shard:
    """What the walk of one shard gathers before keys are paired."""

    def __init__(self, name: str):
        self.name = name
        self.images: dict[str, _Found] = {}
        self.others: dict[str, dict[str, _Found]] = {suffix: {} for suffix in _KINDS}
        self.dotted: list[_Dotted] = []
        self.problems: list[Problem] = []

    def report(self, key: str, offset: int, reason: str) -> None:
        self.problems.append(Problem(self.name, key, offset, reason))

    def add(self, suffix: str, found: _Found) -> None:
        """Keep the first image and the first label of a key."""
        place = self.others.get(suffix, self.images)
        if found.key in place:
            kind, _ = _KINDS.get(suffix, ("image", LARGEST_IMAGE))
            kind = "set of boxes" if suffix == BOXES_SUFFIX else kind
            self.report(found.key, found.offset, f"{SECOND} {kind} of the same key: the first is kept")
        else:
            place[found.key] = found


def read_shard(
    path: Path, name: str, classes: int | None, advance: Callable[[int], None]
) -> tuple[list[Sample], list[Problem]]:
    """Find the samples of one tar.

    Args:
        path: The tar.
        name: What reports call it.
        classes: Labels count from 0 to here; None where the number of classes is unknown.
        advance: Receives the number of bytes read, now and then.

    Returns:
        The samples in the order of their bytes, and the problems likewise.
    """
    shard, done = _Shard(name), 0
    with BufferedReader(FileIO(path), 1 << 20) as stream:
        for entry in tar.walk(stream):
            if isinstance(entry, tar.Damage):
                shard.report("", entry.offset, entry.reason)
            else:
                _sort_in(shard, stream, entry, classes)
            if entry.offset - done > 1 << 22:
                advance(entry.offset - done)
                done = entry.offset
        advance(stream.seek(0, 2) - done)
    _settle_dotted(shard)
    samples = _pair(shard, classes)
    if not samples and not shard.problems:
        shard.report("", 0, "no image: members with the suffix of an image are missing")
    return samples, sorted(shard.problems, key=lambda problem: problem.offset)


def _sort_in(shard: _Shard, stream: BufferedIOBase, member: tar.Member, classes: int | None) -> None:
    folder, slash, base = member.name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    if not stem or not dot:  # `._000.jpg` is macOS metadata, and no suffix is no image
        return
    suffix = suffix.lower()
    words, _, last = suffix.rpartition(".")
    if last in OTHER_IMAGES or ".".join(suffix.split(".")[-2:]) in OTHER_IMAGES:
        shard.report(f"{folder}{slash}{base}", member.offset, f"not a readable kind of image: {base}")
    key = f"{folder}{slash}{stem}"
    if suffix in (MASK_SUFFIX, TARGET_SUFFIX, BOXES_SUFFIX):
        shard.add(suffix, _read(stream, member, key, suffix, classes))
    elif last in IMAGE_SUFFIXES or last in (LABEL_SUFFIX, CLASSES_SUFFIX):
        own = f"{folder}{slash}{base[: -len(last) - 1]}"
        found = _read(stream, member, own, last, classes)
        # An array next to an image is an extra (an embedding, say), like `000.seg.png` next to `000.jpg`.
        if not words and last != "npy":
            shard.add(suffix, found)
        elif words.replace(".", "").isdecimal():
            shard.add(last, found)
        else:
            shard.dotted.append(_Dotted(key, words, last, found))


def _read(stream: BufferedIOBase, member: tar.Member, key: str, suffix: str, classes: int | None) -> _Found:
    kind, most = _KINDS.get(suffix, ("image", LARGEST_IMAGE))
    if member.size > most:
        return _Found(key, member.offset, fault=f"{kind} too large: {member.size:,} bytes")
    stream.seek(member.offset)
    data = stream.read(member.size)
    found = _Found(key, member.offset, member.size, zlib.crc32(data))
    try:
        if suffix in (LABEL_SUFFIX, CLASSES_SUFFIX):
            return _labeled(found, suffix, _text(data), classes)
        if suffix == TARGET_SUFFIX:
            return found._replace(value=parse_target(_text(data).encode()))
        if suffix == BOXES_SUFFIX:
            return found._replace(value=parse_objects(_text(data).encode()))
        return _masking(found, data) if suffix == MASK_SUFFIX else _shown(found, data)
    except (ValueError, RecursionError) as error:  # a BadImage, or JSON of another kind
        return found._replace(fault=f"unreadable {kind}: {error}")


def _shown(found: _Found, data: bytes) -> _Found:
    width, height = image_size(data)
    raw, dark = decode_raw(data), None
    if raw is not None and not is_array(data):  # an array has its scale in stats.json
        decode(data, raw.values.shape[2])  # refuses numbers that have no fixed scale
        dark = is_dark(raw.values)
    if cut_short(data):
        raise BadImage("JPEG cut short, without an end marker")
    return found._replace(width=width, height=height, dark=dark)


def _masking(found: _Found, data: bytes) -> _Found:
    height, width = decode_mask(data).shape
    return found._replace(width=width, height=height, value=Place(found.offset, found.size, found.crc32))


def _labeled(found: _Found, suffix: str, text: str, classes: int | None) -> _Found:
    """A label, or integers between spaces or commas; an empty member is an image that shows none of the classes."""
    if suffix == LABEL_SUFFIX:
        label, fault = _integer(text, classes)
        return found._replace(value=label, fault=fault)
    numbers = [_integer(word, classes or _CLASSES) for word in text.replace(",", " ").split()]
    fault = next((fault for _, fault in numbers if fault), "")
    return found._replace(value=tuple(sorted({number for number, _ in numbers})), fault=fault)


def _text(data: bytes) -> str:
    return data.decode("utf-8-sig", "backslashreplace").strip()


def _integer(text: str, classes: int | None) -> tuple[int, str]:
    """A label, or -1 and what is wrong with it."""
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return -1, f"label is not an integer: {text[:40]!r}"
    label = int(text)
    if label < 0:
        return -1, f"label is negative: {label}"
    if label >= (classes or _LABELS):
        return -1, f"label is out of range: {label} of {classes or _LABELS} classes"
    return label, ""


def _settle_dotted(shard: _Shard) -> None:
    """Find the image among members with words before their suffix; the others are counted."""
    left_out: Counter[str] = Counter()
    groups: dict[str, list[_Dotted]] = defaultdict(list)
    for member in shard.dotted:
        if member.suffix in (LABEL_SUFFIX, CLASSES_SUFFIX):
            shard.add(member.suffix, member.found)
        else:
            groups[member.key].append(member)
    plain = set(shard.images)
    for key, members in groups.items():
        images = [] if key in plain else [each for each in members if not _TARGETS & set(each.words.split("."))]
        labeled = any(key in found for found in shard.others.values())
        alone = len(images) == 1 and (len(members) > 1 or labeled)
        for each in images:
            shard.add(each.suffix, each.found._replace(key=key) if alone else each.found)
        left_out.update(f".{each.words}.{each.suffix}" for each in members if each not in images and each.words)
    for name, count in left_out.items():
        shard.report("", 0, f"{name} next to the image of its key: {count:,} left out")


def _pair(shard: _Shard, classes: int | None) -> list[Sample]:
    labels = shard.others[CLASSES_SUFFIX] | shard.others[LABEL_SUFFIX]  # of both, the set is an extra like any other
    members = {_KINDS[suffix][0]: shard.others[suffix] for suffix in (MASK_SUFFIX, TARGET_SUFFIX, BOXES_SUFFIX)}
    expected = {kind for kind, found in members.items() if any(not each.fault for each in found.values())}
    members, expected = {**members, "label": labels}, expected | ({"label"} if labels else set())
    names = next((found.value.keys() for found in members["target"].values() if not found.fault), None)
    samples = []
    for key, image in sorted(shard.images.items(), key=lambda item: item[1].offset):
        own = {kind: found.pop(key, None) for kind, found in members.items()}
        if image.fault:
            shard.report(key, image.offset, image.fault)
            continue
        for kind, found in own.items():
            missing = f"image without {kind}" if kind in expected else ""
            if fault := missing if found is None else found.fault or _misfit(kind, image, found, names, classes):
                shard.report(key, (found or image).offset, fault)
                own[kind] = None
        samples.append(_sample(image, *(found and found.value for found in own.values())))
    for kind in ("label", "mask", "target", "boxes"):
        for key, found in members[kind].items():
            shard.report(key, found.offset, f"{kind} without image")
    deep = [image.dark for image in shard.images.values() if image.dark is not None]
    if sum(deep) > len(deep) / 2:
        shard.report("", 0, f"{DARK}: {sum(deep):,} use less than half of the range, `mae-kit shard` rescales them")
    return samples


def _sample(image: _Found, mask: Any, target: Any, objects: Any, label: int | tuple[int, ...] | None) -> Sample:
    one, several = (-1, label) if isinstance(label, tuple) else (-1 if label is None else label, None)
    place, size = (image.offset, image.size, image.crc32), (image.width, image.height)
    return Sample(image.key, *place, one, *size, several, mask, target, objects)


def _misfit(kind: str, image: _Found, found: _Found, names: Collection[str] | None, classes: int | None) -> str:
    """Why a member does not fit its image; empty where it does."""
    if kind == "mask" and (found.width, found.height) != (image.width, image.height):
        sizes = f"{found.width} x {found.height} pixels for an image of {image.width} x {image.height}"
        return f"mask of another size: {sizes}"
    if kind == "target" and found.value.keys() != names:
        return f"target of other names: {', '.join(found.value)}"
    return found.value.fault(image.width, image.height, classes) if kind == "boxes" else ""
