"""Layouts of folders that other programs make: which files are images, and which folders name no class.

COCO (train2017/), YOLO (images/train/, or train/images/ with train/labels/), VOC (JPEGImages/, SegmentationClass/),
Pascal Context (59_context_labels/), ADE20K (images/training/, annotations/training/), Cityscapes (leftImg8bit/,
gtFine/), img2dataset and LAION (numbered folders with a .json for each image).
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mae_kit.data.index.listing import Skip
from mae_kit.data.packing.splits import HELD_OUT, TRAIN, choose_splits, split_of

_IMAGES = {"images", "image", "imgs", "img", "jpegimages", "rgb", "leftimg8bit", "photos"}
_TARGETS = {"masks", "mask", "labels", "label", "annotations", "annotation", "segmentationclass", "segmentationobject"}
_TARGETS |= {"gt", "gtfine", "gtcoarse", "groundtruth", "ground_truth", "depth", "depths", "segmentation", "seg"}
_MASKS = ("masks", "mask", "segmentationclass", "labels", "label", "annotations", "annotation", "gtfine", "gt")
_MASKS += ("groundtruth", "ground_truth", "segmentation", "seg")
# Beside a folder of images, any name with such a word: 59_context_labels, SegmentationClassContext, segmentations
_LIKE_TARGETS = re.compile(r"(.*[-_ ])?(masks?|labels?|annotations?|segmentations?|gt)([-_ ].*)?|segmentationclass.*")
_NUMBERED = re.compile(r"\d{5,}")
_KINDS = r"masks?(?:[_-]?\d+)?|matte|seg|segmentation|labels?|gt|annotations?|depth|trimap"
_KINDS += "|gtFine_.+|gtCoarse_.+|parts_[0-9]+"
_OF_AN_IMAGE = re.compile(f"(.+)[_-]({_KINDS})", re.IGNORECASE)
_IMAGE_ENDS = re.compile(r"(.+)[_-](leftImg8bit|image|img|rgb|sat)", re.IGNORECASE)
_CITY = "_leftImg8bit"
_MASK_ENDS = ("", "_gtFine_labelTrainIds", "_gtFine_labelIds", "_mask", "-mask", "_masks", "_label", "_labels", "_seg")
_MASK_ENDS += ("_segmentation", "_gt")


class Layout(NamedTuple):
    """What the folders of images mean.

    Attributes:
        paths: By the name of each image, its folders that may name a split or class, and the file.
        skipped: Masks and the like.
        no_classes: Whether the folders are known to be no classes: numbered parts of a download, Cityscapes' cities.
        masks: By the name of an image, its mask: the PNG of the same path and stem in a folder of masks, or next to it.
        alone: Masks in that folder that have no image.
        masked: Whether there are masks at all, with or without an image.
    """

    paths: dict[str, list[str]]
    skipped: list[Skip]
    no_classes: bool
    masks: dict[str, str]
    alone: set[str]
    masked: bool


class _Pairs(NamedTuple):
    """Masks by the names of their images, and those without an image."""

    masks: dict[str, str]
    alone: set[str]


def recognize(names: list[str], others: list[Skip], masks: Iterable[str] = ()) -> Layout:
    """Recognize the layout of a folder.

    Args:
        names: Images, relative to the folder.
        others: The other files.
        masks: Of the names, those that show the classes of the image of the same folder and stem.
    """
    stems = {os.path.splitext(name)[0] for name in names}
    stems |= {end[1] for stem in stems if (end := _IMAGE_ENDS.fullmatch(stem))}
    twins = {name for name in names if (of := _OF_AN_IMAGE.fullmatch(os.path.splitext(name)[0])) and of[1] in stems}
    twins |= {name for name in masks if not _is_target(name.split(os.sep))}
    paths = {name: name.split(os.sep) for name in names if name not in twins}
    targets = {name for name, path in paths.items() if _is_target(path)}
    images = {name: path for name, path in paths.items() if name not in targets}
    places = {name: place for name, path in images.items() if (place := _images_folder(path)) is not None}
    skipped = [Skip(name, "a mask or annotation, by its name and the image's") for name in sorted(twins)]
    pairs = _Pairs({}, set())
    if places and len(places) == len(images):  # all images lie in a folder `images`
        skipped += [Skip(name, "a mask or annotation, by the name of its folder") for name in sorted(targets)]
        pairs = _pairs(images, places, {name: paths[name] for name in sorted(targets)})
        paths = {name: path[: places[name]] + path[places[name] + 1 :] for name, path in images.items()}
    pairs = pairs if pairs.masks else _beside(images, sorted(twins))
    no_classes = _are_numbered(paths, others) or all(Path(name).stem.endswith(_CITY) for name in paths)
    return Layout(
        _below_top(paths), skipped, no_classes, pairs.masks, pairs.alone, len(paths) < len(names) - len(twins)
    )


def holds_images(folder: str) -> bool:
    """Whether a folder of this name holds images of any class."""
    return folder.lower() in _IMAGES


def _is_target(path: list[str]) -> bool:
    folders = [folder.lower() for folder in path[:-1]]
    beside = _images_folder(path) is None and any(map(_LIKE_TARGETS.fullmatch, folders))
    return beside or bool(_TARGETS & set(folders))


def _pairs(images: dict[str, list[str]], places: dict[str, int], masks: dict[str, list[str]]) -> _Pairs:
    """The masks of one folder with one end of their names, the first that has any image's."""
    whole = {_without(path, places[name]): name for name, path in images.items()}
    shorter = {(*key[:-1], end[1]): name for key, name in whole.items() if (end := _IMAGE_ENDS.fullmatch(key[-1]))}
    for folder in _folders_of_masks(masks):
        for end in _MASK_ENDS:
            found = _in_folder(masks, folder, end, whole if end == "" else shorter | whole)
            if found.masks:
                return found
    return _Pairs({}, set())


def _beside(images: Iterable[str], twins: list[str]) -> _Pairs:
    """The masks that lie next to their images and have one end of their names, the first that has any image's."""
    stems = {os.path.splitext(name)[0]: name for name in images}
    stems |= {end[1]: name for stem, name in stems.items() if (end := _IMAGE_ENDS.fullmatch(stem))}
    pngs = [(os.path.splitext(name)[0], name) for name in twins if name.lower().endswith(".png")]
    for end in _MASK_ENDS:
        found = [(stems.get(stem.removesuffix(end)), name) for stem, name in pngs if stem.endswith(end)]
        if masks := {image: name for image, name in found if image is not None}:
            return _Pairs(masks, set())
    return _Pairs({}, set())


def _folders_of_masks(masks: dict[str, list[str]]) -> list[str]:
    """Names of folders in the order in which they are looked at; of several that are unknown none, since any may be."""
    there = {folder.lower() for path in masks.values() for folder in path[:-1]}
    unknown = [folder for folder in there - _TARGETS if _LIKE_TARGETS.fullmatch(folder)]
    return [folder for folder in _MASKS if folder in there] + (unknown if len(unknown) == 1 else [])


def _in_folder(masks: dict[str, list[str]], folder: str, end: str, images: dict[tuple[str, ...], str]) -> _Pairs:
    found, alone = dict[str, str](), set[str]()
    for name, path in masks.items():
        depth = next((i for i, part in enumerate(path[:-1]) if part.lower() == folder), None)
        stem, suffix = os.path.splitext(path[-1])
        if depth is None or suffix.lower() != ".png" or not stem.endswith(end):
            continue
        image = images.get((*_without(path, depth)[:-1], stem.removesuffix(end)))
        found |= {} if image is None else {image: name}
        alone |= {name} if image is None else set()
    return _Pairs(found, alone)


def _without(path: list[str], depth: int) -> tuple[str, ...]:
    """A path without one of its folders and without the suffix."""
    return (*path[:depth], *path[depth + 1 : -1], os.path.splitext(path[-1])[0])


def _images_folder(path: list[str]) -> int | None:
    return next((depth for depth, folder in enumerate(path[:-1]) if holds_images(folder)), None)


def _below_top(paths: dict[str, list[str]]) -> dict[str, list[str]]:
    """Leave out single folders, one in the other, above several splits."""
    below = paths
    while len({path[0] for path in below.values()}) == 1 and all(len(path) > 2 for path in below.values()):
        below = {name: path[1:] for name, path in below.items()}
        if len(choose_splits(sorted({path[0] for path in below.values()})) or ()) > 1:
            return below
    return paths


def _are_numbered(paths: dict[str, list[str]], others: list[Skip]) -> bool:
    folders = {folder for path in paths.values() for folder in path[:-1] if split_of(folder) not in (*TRAIN, *HELD_OUT)}
    if not folders or not all(map(_NUMBERED.fullmatch, folders)):
        return False
    described = {os.path.splitext(skip.name)[0] for skip in others if Path(skip.name).suffix in (".json", ".txt")}
    return sum(os.path.splitext(name)[0] in described for name in paths) > len(paths) / 2
