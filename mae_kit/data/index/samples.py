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
from typing import NamedTuple

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
_LARGEST_LABEL = 1 << 10
_LARGEST_SET = 1 << 16
_LARGEST_BOXES = 1 << 24
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
    label: int = -1
    classes: tuple[int, ...] | None = None
    target: Target | None = None
    objects: Objects | None = None
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
        self.labels: dict[str, _Found] = {}
        self.sets: dict[str, _Found] = {}
        self.masks: dict[str, _Found] = {}
        self.targets: dict[str, _Found] = {}
        self.boxes: dict[str, _Found] = {}
        self.dotted: list[_Dotted] = []
        self.problems: list[Problem] = []

    def report(self, key: str, offset: int, reason: str) -> None:
        self.problems.append(Problem(self.name, key, offset, reason))

    def add(self, suffix: str, found: _Found) -> None:
        """Keep the first image and the first label of a key."""
        places = {LABEL_SUFFIX: ("label", self.labels), CLASSES_SUFFIX: ("set of classes", self.sets)}
        places |= {MASK_SUFFIX: ("mask", self.masks), TARGET_SUFFIX: ("target", self.targets)}
        places |= {BOXES_SUFFIX: ("set of boxes", self.boxes)}
        kind, place = places.get(suffix, ("image", self.images))
        if found.key in place:
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
    if suffix == TARGET_SUFFIX:
        shard.add(suffix, _read_target(stream, member, key))
    if suffix == BOXES_SUFFIX:
        shard.add(suffix, _read_boxes(stream, member, key))
    if last not in IMAGE_SUFFIXES and last not in (LABEL_SUFFIX, CLASSES_SUFFIX):
        return
    if suffix == MASK_SUFFIX:
        shard.add(suffix, _read_mask(stream, member, key))
        return
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
    if suffix == LABEL_SUFFIX:
        return _read_label(stream, member, key, classes)
    return _read_classes(stream, member, key, classes) if suffix == CLASSES_SUFFIX else _read_image(stream, member, key)


def _read_image(stream: BufferedIOBase, member: tar.Member, key: str) -> _Found:
    if member.size > LARGEST_IMAGE:
        return _Found(key, member.offset, fault=f"image too large: {member.size:,} bytes")
    stream.seek(member.offset)
    data = stream.read(member.size)
    try:
        width, height = image_size(data)
        raw = decode_raw(data)
        if raw is not None and not is_array(data):  # an array has its scale in stats.json
            decode(data, raw.values.shape[2])  # refuses numbers that have no fixed scale
    except BadImage as error:
        return _Found(key, member.offset, fault=f"unreadable image: {error}")
    if cut_short(data):
        return _Found(key, member.offset, fault="unreadable image: JPEG cut short, without an end marker")
    return _Found(
        key,
        member.offset,
        member.size,
        zlib.crc32(data),
        width,
        height,
        dark=None if raw is None or is_array(data) else is_dark(raw.values),
    )


def _read_mask(stream: BufferedIOBase, member: tar.Member, key: str) -> _Found:
    if member.size > LARGEST_IMAGE:
        return _Found(key, member.offset, fault=f"mask too large: {member.size:,} bytes")
    stream.seek(member.offset)
    data = stream.read(member.size)
    try:
        height, width = decode_mask(data).shape
    except BadImage as error:
        return _Found(key, member.offset, fault=f"unreadable mask: {error}")
    return _Found(key, member.offset, member.size, zlib.crc32(data), width, height)


def _read_label(stream: BufferedIOBase, member: tar.Member, key: str, classes: int | None) -> _Found:
    label, fault = _integer(_read_text(stream, member, _LARGEST_LABEL), classes)
    return _Found(key, member.offset, label=label, fault=fault)


def _read_classes(stream: BufferedIOBase, member: tar.Member, key: str, classes: int | None) -> _Found:
    """Integers between spaces or commas; an empty member is an image that shows none of the classes."""
    if member.size > _LARGEST_SET:
        return _Found(key, member.offset, fault=f"set of classes too large: {member.size:,} bytes")
    words = _read_text(stream, member, _LARGEST_SET).replace(",", " ").split()
    numbers = [_integer(word, classes or _CLASSES) for word in words]
    if fault := next((fault for _, fault in numbers if fault), ""):
        return _Found(key, member.offset, fault=fault)
    return _Found(key, member.offset, classes=tuple(sorted({number for number, _ in numbers})))


def _read_target(stream: BufferedIOBase, member: tar.Member, key: str) -> _Found:
    if member.size > _LARGEST_SET:
        return _Found(key, member.offset, fault=f"target too large: {member.size:,} bytes")
    try:
        return _Found(key, member.offset, target=parse_target(_read_text(stream, member, _LARGEST_SET).encode()))
    except (ValueError, RecursionError) as error:
        return _Found(key, member.offset, fault=f"unreadable target: {error}")


def _read_boxes(stream: BufferedIOBase, member: tar.Member, key: str) -> _Found:
    if member.size > _LARGEST_BOXES:
        return _Found(key, member.offset, fault=f"boxes too large: {member.size:,} bytes")
    try:
        return _Found(key, member.offset, objects=parse_objects(_read_text(stream, member, _LARGEST_BOXES).encode()))
    except (ValueError, RecursionError) as error:
        return _Found(key, member.offset, fault=f"unreadable boxes: {error}")


def _read_text(stream: BufferedIOBase, member: tar.Member, most: int) -> str:
    stream.seek(member.offset)
    return stream.read(min(member.size, most)).decode("utf-8-sig", "backslashreplace").strip()


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
        labeled = any(key in labels for labels in (shard.labels, shard.sets, shard.masks, shard.targets, shard.boxes))
        alone = len(images) == 1 and (len(members) > 1 or labeled)
        for each in images:
            shard.add(each.suffix, each.found._replace(key=key) if alone else each.found)
        left_out.update(f".{each.words}.{each.suffix}" for each in members if each not in images and each.words)
    for name, count in left_out.items():
        shard.report("", 0, f"{name} next to the image of its key: {count:,} left out")


def _pair(shard: _Shard, known_classes: int | None) -> list[Sample]:
    labels = shard.sets | shard.labels  # where an image has both, the set is an extra like any other member
    samples, labeled, masked = [], bool(labels), any(not mask.fault for mask in shard.masks.values())
    boxed = any(not found.fault for found in shard.boxes.values())
    names = next((found.target.keys() for found in shard.targets.values() if found.target), None)
    for key, image in sorted(shard.images.items(), key=lambda item: item[1].offset):
        label, mask = labels.pop(key, None), shard.masks.pop(key, None)
        if image.fault:
            shard.report(key, image.offset, image.fault)
            continue
        if fault := _mask_fault(image, mask) if mask or masked else "":
            shard.report(key, (mask or image).offset, fault)
        target = _target(shard, image, shard.targets.pop(key, None), names)
        objects = _objects(shard, image, shard.boxes.pop(key, None), boxed, known_classes)
        place = None if mask is None or fault else Place(mask.offset, mask.size, mask.crc32)
        if label is None and labeled:
            shard.report(key, image.offset, "image without label")
        elif label is not None and label.fault:
            shard.report(key, label.offset, label.fault)
        value, classes = (-1, None) if label is None else (label.label, label.classes)
        size = image.width, image.height
        samples.append(
            Sample(key, image.offset, image.size, image.crc32, value, *size, classes, place, target, objects)
        )
    for key, label in labels.items():
        shard.report(key, label.offset, "label without image")
    for kind, members in {"mask": shard.masks, "target": shard.targets, "boxes": shard.boxes}.items():
        for key, member in members.items():
            shard.report(key, member.offset, f"{kind} without image")
    deep = [image.dark for image in shard.images.values() if image.dark is not None]
    if sum(deep) > len(deep) / 2:
        shard.report("", 0, f"{DARK}: {sum(deep):,} use less than half of the range, `mae-kit shard` rescales them")
    return samples


def _mask_fault(image: _Found, mask: _Found | None) -> str:
    """Why an image has no mask, in a shard that has masks; empty where it has one."""
    if mask is None:
        return "image without mask"
    if mask.fault or (mask.width, mask.height) == (image.width, image.height):
        return mask.fault
    return f"mask of another size: {mask.width} x {mask.height} pixels for an image of {image.width} x {image.height}"


def _target(shard: _Shard, image: _Found, found: _Found | None, names: Collection[str] | None) -> Target | None:
    """The target of an image; what is wrong with it is reported, in a shard that has targets."""
    if found is None and names is None:
        return None
    fault = "image without target" if found is None else found.fault
    if found is not None and found.target is not None and found.target.keys() != names:
        fault = f"target of other names: {', '.join(found.target)}"
    if fault:
        shard.report(image.key, (found or image).offset, fault)
    return found.target if found is not None and not fault else None


def _objects(shard: _Shard, image: _Found, found: _Found | None, boxed: bool, classes: int | None) -> Objects | None:
    """The objects in an image; what is wrong with them is reported, in a shard that has boxes."""
    if found is None:
        if boxed:
            shard.report(image.key, image.offset, "image without boxes")
        return None
    fault = found.fault or (found.objects.fault(image.width, image.height, classes) if found.objects else "")
    if fault:
        shard.report(image.key, found.offset, fault)
    return None if fault else found.objects
