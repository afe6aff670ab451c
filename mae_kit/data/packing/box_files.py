"""Files that say which objects images show: COCO JSON, Pascal VOC XML, YOLO text."""

import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

from mae_kit.data.index.class_names import kept_apart, read_classes
from mae_kit.data.index.listing import Skip
from mae_kit.data.packing.boxes import UNKNOWN, Annotation
from mae_kit.errors import UserError

log = logging.getLogger(__name__)

_COCO_NAMES = re.compile(r"instances|coco|annotations", re.IGNORECASE)
_COCO_PARTS = {"images": ("id", "file_name"), "annotations": ("image_id", "bbox"), "categories": ("id", "name")}
_SPLITS = Path("ImageSets/Main")
_CLASSES = 1 << 16  # of YOLO, whose files may name none
_LABELS, _IMAGES = "labels", ("images", "image", "imgs", "img")
_ENTITY = re.compile(rb"<!(DOCTYPE|ENTITY)")


@dataclass
class BoxFiles:
    """What the files of one kind say.

    Attributes:
        kind: COCO, VOC or YOLO.
        classes: Names of the classes.
        images: By the name of an image, its objects; images that are not there have none that are known.
        files: The files that were read.
        bad: Those that could not be, and why.
    """

    kind: str
    classes: list[str]
    images: dict[str, Annotation]
    files: set[str]
    bad: list[Skip] = field(default_factory=list)


def find_boxes(root: Path, images: list[str], others: list[str]) -> BoxFiles | None:
    """Find the files of boxes in a folder; None where there are none.

    Args:
        root: The folder.
        images: Names of its images, relative to it.
        others: Names of its other files.

    Raises:
        UserError: Files of several kinds, or one that names no classes.
    """
    found = [one for read in (_coco, _voc, _yolo) if (one := read(root, images, others)) is not None]
    if len(found) > 1:
        what = f"{root} holds boxes of several kinds: {' and '.join(one.kind for one in found)}"
        raise UserError("shard.labels.boxes_kinds", what, "move all but one away")
    return found[0] if found else None


# COCO


def _coco(root: Path, images: list[str], others: list[str]) -> BoxFiles | None:
    named = [name for name in others if name.lower().endswith(".json") and _COCO_NAMES.search(name)]
    instances = [name for name in named if "instances" in os.path.basename(name).lower()]
    contents = {name: one for name in instances or named if (one := _load_coco(root / name)) is not None}
    if not contents:
        return None
    categories = {each["id"]: str(each["name"]) for one in contents.values() for each in one["categories"]}
    ids = sorted(categories, key=lambda category: (isinstance(category, str), category))
    number: dict[Any, int] = {category: label for label, category in enumerate(ids)}
    found, bad = dict[str, Annotation](), list[Skip]()
    for name, content in contents.items():
        _take_coco(content, _Places(images, os.path.dirname(name)), number, found, bad, name)
    return BoxFiles("COCO", kept_apart([categories[each] for each in ids]), found, set(contents), bad)


def _load_coco(file: Path) -> dict[str, Any] | None:
    """The content of a file, without a limit to its size; None where it is of another kind."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return None
    rows = [(content.get(part), keys) for part, keys in _COCO_PARTS.items()] if isinstance(content, dict) else []
    known = rows and all(isinstance(part, list) and all(_has(row, keys) for row in part) for part, keys in rows)
    return content if known else None


def _has(row: Any, keys: tuple[str, str]) -> bool:
    """Whether it is an object with these keys, the first of them an id."""
    return isinstance(row, dict) and row.keys() >= set(keys) and isinstance(row[keys[0]], int | str)


class _Places:
    """Finds the image that a file means by a name: a path from the root or from the file, or a name that is unique."""

    def __init__(self, images: list[str], folder: str):
        self.folder, self.images = folder, set(images)
        self.by_base: dict[str, list[str]] = {}
        for name in images:
            self.by_base.setdefault(os.path.basename(name), []).append(name)

    def find(self, name: str) -> str | None:
        given = os.path.normpath(name.replace("\\", "/").replace("/", os.sep))
        for place in (os.path.join(self.folder, given), given):
            if place in self.images:
                return place
        same = [each for each in self.by_base.get(os.path.basename(given), []) if each.endswith(given)]
        return same[0] if len(same) == 1 else None


def _take_coco(
    content: dict[str, Any],
    places: _Places,
    number: dict[Any, int],
    found: dict[str, Annotation],
    bad: list[Skip],
    file: str,
) -> None:
    """Add what a file says, images without objects too."""
    rows: dict[Any, list[dict[str, Any]]] = {}
    for each in content["annotations"]:
        rows.setdefault(each["image_id"], []).append(each)
    for image in content["images"]:
        name = places.find(str(image["file_name"]))
        if name is None:
            continue
        boxes = rows.get(image["id"], [])
        try:
            corners = [_corners(*map(float, each["bbox"])) for each in boxes]
        except (TypeError, ValueError):
            bad.append(Skip(file, f"unreadable boxes of {name}"))
            continue
        labels = [_number(number, each.get("category_id")) for each in boxes]
        frame = (image["width"], image["height"]) if image.get("width") and image.get("height") else None
        found[name] = Annotation(corners, labels, [bool(each.get("iscrowd")) for each in boxes], frame)


def _number(number: dict[Any, int], category: Any) -> int:
    return number.get(category, UNKNOWN) if isinstance(category, int | str) else UNKNOWN


def _corners(left: float, top: float, width: float, height: float) -> list[float]:
    return [left, top, left + width, top + height]


# VOC


def _voc(root: Path, images: list[str], others: list[str]) -> BoxFiles | None:
    files = [name for name in others if name.lower().endswith(".xml")]
    by_stem: dict[str, list[str]] = {}
    for name in images:
        by_stem.setdefault(os.path.basename(os.path.splitext(name)[0]), []).append(name)
    trees, bad = dict[str, ElementTree.Element](), list[Skip]()
    for file in files:
        same = by_stem.get(os.path.basename(os.path.splitext(file)[0]), [])
        image = max(same, key=lambda name: len(os.path.commonpath([name, file])), default=None)
        if image is None:
            continue
        try:
            trees[image] = _load_xml(root / file)
        except (ElementTree.ParseError, ValueError) as error:
            bad.append(Skip(file, f"unreadable boxes: {error}"))
    trees = {image: tree for image, tree in trees.items() if tree.tag == "annotation"}
    if not trees:
        return None
    given = read_classes(root)
    named = sorted({_text(each, "name") for tree in trees.values() for each in tree.iter("object")} - {""})
    number = {name: label for label, name in enumerate(given or named)}
    found = {}
    for image, tree in trees.items():
        try:
            found[image] = _voc_objects(tree, number)
        except (TypeError, ValueError) as error:
            bad.append(Skip(image, f"unreadable boxes: {error}"))
    return BoxFiles("VOC", given or named, found, set(files) - {skip.name for skip in bad}, bad)


def _load_xml(file: Path) -> ElementTree.Element:
    text = file.read_bytes()
    if _ENTITY.search(text):  # which could expand to any size
        raise ValueError("it declares entities")
    return ElementTree.fromstring(text)


def _voc_objects(tree: ElementTree.Element, number: dict[str, int]) -> Annotation:
    objects = list(tree.iter("object"))
    edges = [[float(_text(each, f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax")] for each in objects]
    labels = [number.get(_text(each, "name"), UNKNOWN) for each in objects]
    width, height = (float(_text(tree, f"size/{side}") or 0) for side in ("width", "height"))
    return Annotation(edges, labels, [False] * len(objects), (width, height) if width and height else None)


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def voc_splits(root: Path) -> dict[str, bool] | None:
    """Of the stems of images whether they are held out, by the lists of a VOC folder; None without such lists."""
    lists = [(root / _SPLITS / f"{name}.txt") for name in ("train", "val", "test")]
    there = [file for file in lists if file.is_file()]
    if not there or there[0] != lists[0]:
        return None
    return {stem: file != lists[0] for file in there[:2] for stem in file.read_text().split()}


# YOLO


def _yolo(root: Path, images: list[str], others: list[str]) -> BoxFiles | None:
    texts = {name for name in others if name.endswith(".txt")}
    files = {image: file for image in images if (file := _yolo_file(image)) in texts}
    if not files:
        return None
    raw, bad = dict[str, list[list[float]]](), list[Skip]()
    for image in images:  # one without a file shows no objects
        try:
            raw[image] = list(_yolo_lines(root / files[image])) if image in files else []
        except ValueError as error:
            bad.append(Skip(files[image], f"unreadable boxes: {error}"))
    largest = int(max((row[0] for rows in raw.values() for row in rows), default=0))
    classes = read_classes(root) or _yolo_names(root, others) or [str(number) for number in range(largest + 1)]
    found = {}
    for image, rows in raw.items():
        corners = [[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for _, x, y, w, h in rows]
        labels = [int(row[0]) if row[0] < len(classes) else UNKNOWN for row in rows]
        found[image] = Annotation(corners, labels, [False] * len(rows), (1, 1), upright=True)
    return BoxFiles("YOLO", classes, found, set(files.values()) - {skip.name for skip in bad}, bad)


def _yolo_file(image: str) -> str | None:
    """Where the boxes of an image lie: labels/ in place of its images/, or next to it."""
    parts = os.path.splitext(image)[0].split(os.sep)
    depth = next((i for i, part in enumerate(parts[:-1]) if part.lower() in _IMAGES), None)
    return None if depth is None else os.sep.join([*parts[:depth], _LABELS, *parts[depth + 1 :]]) + ".txt"


def _yolo_lines(file: Path) -> Iterator[list[float]]:
    """Class, center, width and height of each box; of a polygon those around it."""
    for line in file.read_text("utf-8-sig").splitlines():
        numbers = [float(word) for word in line.split()]
        if not numbers:
            continue
        if not (0 <= numbers[0] < _CLASSES and numbers[0].is_integer()) or len(numbers) < 5 or len(numbers) % 2 == 0:
            raise ValueError(f"{line[:40]!r} is no class with a box")
        if len(numbers) > 5:
            x, y = numbers[1::2], numbers[2::2]
            numbers[1:] = (min(x) + max(x)) / 2, (min(y) + max(y)) / 2, max(x) - min(x), max(y) - min(y)
        yield numbers


def _yolo_names(root: Path, others: list[str]) -> list[str] | None:
    """The names that a data.yaml at the top gives; a list, or by number."""
    for name in sorted(others):
        if os.sep not in name and name.endswith((".yaml", ".yml")):
            try:
                names = (yaml.safe_load((root / name).read_text("utf-8")) or {}).get("names")
            except (yaml.YAMLError, AttributeError, ValueError):
                continue
            if isinstance(names, dict) and sorted(names) == list(range(len(names))):
                names = [names[number] for number in range(len(names))]
            if isinstance(names, list) and names:
                return kept_apart([str(each) for each in names])
    return None
