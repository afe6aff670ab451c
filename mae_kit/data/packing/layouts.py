"""Layouts of folders that other programs make: which files are images, and which folders name no class.

COCO (train2017/), YOLO (images/train/, or train/images/ with train/labels/), VOC (JPEGImages/, SegmentationClass/),
img2dataset and LAION (numbered folders with a .json for each image).
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from mae_kit.data.index.listing import Skip
from mae_kit.data.packing.splits import HELD_OUT, TRAIN, choose_splits, split_of

_IMAGES = {"images", "image", "imgs", "img", "jpegimages", "rgb", "leftimg8bit", "photos"}
_TARGETS = {"masks", "mask", "labels", "label", "annotations", "annotation", "segmentationclass", "segmentationobject"}
_TARGETS |= {"gt", "gtfine", "gtcoarse", "groundtruth", "ground_truth", "depth", "depths", "segmentation", "seg"}
_MASKS = ("masks", "mask", "segmentationclass", "labels", "label", "annotations", "annotation", "gtfine", "gt")
_MASKS += ("groundtruth", "ground_truth", "segmentation", "seg")
_NUMBERED = re.compile(r"\d{5,}")
_OF_AN_IMAGE = re.compile(r"(.+)[_-](masks?|seg|segmentation|labels?|gt|annotations?|depth|trimap)", re.IGNORECASE)


class Layout(NamedTuple):
    """What the folders of images mean.

    Attributes:
        paths: By the name of each image, its folders that may name a split or class, and the file.
        skipped: Masks and the like.
        numbered: Whether folders are numbered parts of a download, no classes.
        masks: By the name of an image, its mask: the PNG of the same path and stem in a folder of masks.
        alone: Masks in that folder that have no image.
    """

    paths: dict[str, list[str]]
    skipped: list[Skip]
    numbered: bool
    masks: dict[str, str]
    alone: set[str]


def recognize(names: list[str], others: list[Skip]) -> Layout:
    """Recognize the layout of a folder.

    Args:
        names: Images, relative to the folder.
        others: The other files.
    """
    stems = {os.path.splitext(name)[0] for name in names}
    twins = [name for name in names if (of := _OF_AN_IMAGE.fullmatch(os.path.splitext(name)[0])) and of[1] in stems]
    paths = {name: name.split(os.sep) for name in names if name not in {*twins}}
    masks = {name for name, path in paths.items() if _TARGETS & {folder.lower() for folder in path[:-1]}}
    places = {_images_folder(path) for name, path in paths.items() if name not in masks}
    skipped = [Skip(name, "a mask or annotation, by its name and the image's") for name in twins]
    pairs, alone = dict[str, str](), set[str]()
    place = next(iter(places), None)
    if len(places) == 1 and place is not None:  # all images lie in a folder `images`, at one depth
        skipped += [Skip(name, "a mask or annotation, by the name of its folder") for name in sorted(masks)]
        pairs, alone = _pairs(paths, place, masks)
        paths = {name: path[:place] + path[place + 1 :] for name, path in paths.items() if name not in masks}
    return Layout(_below_top(paths), skipped, _are_numbered(paths, others), pairs, alone)


def _pairs(paths: dict[str, list[str]], place: int, masks: set[str]) -> tuple[dict[str, str], set[str]]:
    """Masks by the names of their images, in the first folder of `_MASKS` that has any, and those without an image."""
    images = {_without(path, place): name for name, path in paths.items() if name not in masks}
    for folder in _MASKS:
        found, alone = dict[str, str](), set[str]()
        for name in sorted(masks):
            depth = next((i for i, part in enumerate(paths[name][:-1]) if part.lower() == folder), None)
            if depth is None or not name.lower().endswith(".png"):
                continue
            image = images.get(_without(paths[name], depth))
            found |= {} if image is None else {image: name}
            alone |= {name} if image is None else set()
        if found:
            return found, alone
    return {}, set()


def _without(path: list[str], depth: int) -> tuple[str, ...]:
    """A path without one of its folders and without the suffix."""
    return (*path[:depth], *path[depth + 1 : -1], os.path.splitext(path[-1])[0])


def _images_folder(path: list[str]) -> int | None:
    return next((depth for depth, folder in enumerate(path[:-1]) if folder.lower() in _IMAGES), None)


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
