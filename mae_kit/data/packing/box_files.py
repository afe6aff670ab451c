"""Files that say which objects images show: COCO JSON, Pascal VOC XML, YOLO text."""

import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import yaml

from mae_kit.data.index.class_names import kept_apart, read_classes
from mae_kit.data.index.listing import Skip
from mae_kit.data.packing.boxes import UNKNOWN, Annotation
from mae_kit.data.packing.splits import HELD_OUT, TRAIN, split_of, within
from mae_kit.errors import UserError
from mae_kit.files.recipe_file import parse_yaml

log = logging.getLogger(__name__)

_COCO_NAMES = re.compile(r"instances|coco|annotations", re.IGNORECASE)
_COCO_PARTS = {"images": ("id", "file_name"), "annotations": ("image_id", "bbox"), "categories": ("id", "name")}
_LISTS, _VOC_SPLITS = os.path.join("ImageSets", "Main"), ("train", "val", "test")
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
        held_out: Of images whether they are held out, where the files say it; others are in no split.
    """

    kind: str
    classes: list[str]
    images: dict[str, Annotation]
    files: set[str]
    bad: list[Skip] = field(default_factory=list)
    held_out: dict[str, bool] | None = None


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
    categories = {each["id"]: str(each["name"]) for one in contents.values() for each in _classes_of(one)}
    ids = sorted(categories, key=lambda category: (isinstance(category, str), category))
    number: dict[Any, int] = {category: label for label, category in enumerate(ids)}
    found, bad = dict[str, Annotation](), list[Skip]()
    for name, content in contents.items():
        _take_coco(content, _Places(images, name), number, found, bad, name)
    return BoxFiles("COCO", kept_apart([categories[each] for each in ids]), found, set(contents), bad)


def _classes_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The categories without one that stands above the others and has no box, which Roboflow writes first."""
    rows = content["categories"]
    used = {number for each in content["annotations"] if isinstance(number := each.get("category_id"), int | str)}
    above = [each.get("supercategory") for each in rows]
    tops = [each for each in rows if each.get("supercategory") == "none" and each["name"] in above]
    return [each for each in rows if each not in tops or each["id"] in used]


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
    """Finds the image that a file means by a name: a path from the root or from the file, or a name that is unique.

    Unique among the images in the file's own folder, or of the split that it is called by, where there are any.
    """

    def __init__(self, images: list[str], file: str):
        self.folder, self.images = os.path.dirname(file), set(images)
        own = [name for name in images if self.folder and name.startswith(os.path.join(self.folder, ""))]
        split = within(Path(file).stem)[0]
        alike = [name for name in images if split and split in map(split_of, name.split(os.sep)[:-1])]
        self.by_base: dict[str, list[str]] = {}
        for name in own or alike or images:
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
            width, height = (float(image.get(side) or 0) for side in ("width", "height"))
        except (TypeError, ValueError, OverflowError):
            bad.append(Skip(file, f"unreadable boxes of {name}"))
            continue
        labels = [_number(number, each.get("category_id")) for each in boxes]
        frame = (width, height) if width and height else None
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
        except (ElementTree.ParseError, LookupError, ValueError) as error:
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
    read, held_out = set(files) - {skip.name for skip in bad}, _voc_splits(root, images, others)
    return BoxFiles("VOC", given or named, found, read, bad, held_out)


def _load_xml(file: Path) -> ElementTree.Element:
    text = file.read_bytes()
    if _ENTITY.search(text.replace(b"\0", b"")):  # in UTF-16, too; they could expand to any size
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


def _voc_splits(root: Path, images: list[str], others: list[str]) -> dict[str, bool] | None:
    """Of images whether they are held out, by the lists of a VOC folder; None without such lists."""
    lists = {Path(name).stem: root / name for name in others if f"{os.sep}{os.path.dirname(name)}".endswith(_LISTS)}
    if "train" not in lists:
        return None
    there = [split for split in _VOC_SPLITS if split in lists][:2]
    splits = {stem: split != "train" for split in there for stem in lists[split].read_text("utf-8", "replace").split()}
    return {name: splits[stem] for name in images if (stem := Path(name).stem) in splits}


# YOLO


def _yolo(root: Path, images: list[str], others: list[str]) -> BoxFiles | None:
    texts = {name for name in others if name.endswith(".txt")}
    files = {image: file for image in images if (file := _yolo_file(image, texts))}
    if not files:
        return None
    raw, bad = dict[str, list[list[float]]](), list[Skip]()
    for image in images:  # one without a file shows no objects
        try:
            raw[image] = list(_yolo_lines(root / files[image])) if image in files else []
        except ValueError as error:
            bad.append(Skip(files[image], f"unreadable boxes: {error}"))
    if len(bad) == len(files) and not any(map(_in_folder, images)):
        return None  # texts of another kind, such as captions
    about = _yolo_data(root, others)
    largest = int(max((row[0] for rows in raw.values() for row in rows), default=0))
    classes = read_classes(root) or about.names or [str(number) for number in range(largest + 1)]
    found = {}
    for image, rows in raw.items():
        corners = [[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for _, x, y, w, h in rows]
        labels = [int(row[0]) if row[0] < len(classes) else UNKNOWN for row in rows]
        found[image] = Annotation(corners, labels, [False] * len(rows), (1, 1), upright=True)
    return BoxFiles(
        "YOLO", classes, found, set(files.values()) - {skip.name for skip in bad}, bad, about.splits(images)
    )


def _in_folder(image: str) -> int | None:
    return next((i for i, part in enumerate(image.split(os.sep)[:-1]) if part.lower() in _IMAGES), None)


def _yolo_file(image: str, texts: set[str]) -> str | None:
    """Where the boxes of an image lie: labels/ in place of its images/, or, as in darknet, next to the image."""
    name = os.path.splitext(image)[0] + ".txt"
    parts, depth = name.split(os.sep), _in_folder(image)
    moved = "" if depth is None else os.sep.join([*parts[:depth], _LABELS, *parts[depth + 1 :]])
    return next((file for file in (moved, name) if file in texts), None)


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


class _About(NamedTuple):
    """What a data.yaml says: names of classes, and the folders of images of each split below the root."""

    names: list[str] | None = None
    folders: dict[str, list[str]] = {}  # noqa: RUF012  # a tuple's default is never changed

    def splits(self, images: list[str]) -> dict[str, bool] | None:
        """Of images whether they are held out; None where there is one split."""
        if len({*map(tuple, self.folders.values())}) < 2:
            return None
        held_out = {place: split != "train" for split, places in self.folders.items() for place in places}
        above = {image: [str(place) for place in (Path(image), *Path(image).parents)] for image in images}
        found = {
            image: next((held_out[place] for place in above[image] if place in held_out), None) for image in images
        }
        return {image: held for image, held in found.items() if held is not None}


def _yolo_data(root: Path, others: list[str]) -> _About:
    """Read the data.yaml that is nearest to the top and names classes, in a list or by number.

    Raises:
        UserError: The images that it speaks of are elsewhere.
    """
    files = [name for name in others if name.endswith((".yaml", ".yml"))]
    for name in sorted(files, key=lambda name: (name.count(os.sep), name)):
        try:
            content = parse_yaml((root / name).read_text("utf-8-sig"))
        except (yaml.YAMLError, ValueError) as error:
            log.warning(f"{root / name} is not read: {' '.join(str(error).split())}")
            continue
        names = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, dict) and {*names} == {*range(len(names))}:
            names = [names[number] for number in range(len(names))]
        if isinstance(names, list) and names:
            return _About(kept_apart([str(each) for each in names]), _yolo_folders(root, name, content))
    return _About()


def _yolo_folders(root: Path, file: str, content: dict[str, Any]) -> dict[str, list[str]]:
    """What a data.yaml gives for train and val, folders or lists of images, relative to the root."""
    found = {}
    for split in ("train", "val"):
        given = content.get(split) or []
        parts = [str(part) for part in (given if isinstance(given, list) else [given])]
        places = [_here(root, os.path.dirname(file), part) for part in parts]
        if None in places:
            what = f"{root / file} has its images for {split} at {parts[places.index(None)]}, which is not in {root}"
            raise UserError("shard.labels.yolo_paths", what, "give the folder that holds them, or correct that file")
        found |= {split: [each for place in places if place for each in _listed(root, place)]} if places else {}
    return found


def _listed(root: Path, place: str) -> list[str]:
    """A folder; or what a list of images names."""
    if (root / place).is_dir():
        return [place]
    lines = (root / place).read_text("utf-8", "replace").split("\n")
    there = [_here(root, os.path.dirname(place), line.strip()) for line in lines if line.strip()]
    return [each for each in there if each]


def _here(root: Path, base: str, given: str) -> str | None:
    """A folder that a data.yaml names, if it is below the root: from the file, also where it was written elsewhere."""
    parts = [part for part in Path(given.replace("\\", "/")).parts if part not in ("..", ".", "/")]
    for start in range(len(parts)):
        rest = parts[start:]
        if start and not {*map(split_of, rest)} & {*TRAIN, *HELD_OUT}:
            return None
        for place in (os.path.join(base, *rest), os.path.join(*rest)):
            if (root / place).exists():
                return os.path.normpath(place)
    return None
