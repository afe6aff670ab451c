"""A folder of images: its classes and splits."""

import logging
import os
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mae_kit.data.decode import decode_mask
from mae_kit.data.index.class_names import FILE as CLASSES
from mae_kit.data.index.class_names import read_classes
from mae_kit.data.index.class_sets import ClassSets
from mae_kit.data.index.listing import Skip
from mae_kit.data.packing.box_files import BoxFiles, find_boxes
from mae_kit.data.packing.label_file import LabelFile, read_label_file, read_table
from mae_kit.data.packing.layouts import Layout, holds_images, recognize
from mae_kit.data.packing.mask import is_binary, shows_classes
from mae_kit.data.packing.number_file import read_numbers
from mae_kit.data.packing.source import FROM_SOURCE, Source, check_there, class_labels, read_file
from mae_kit.data.packing.splits import HELD_OUT, TRAIN, choose_splits, kinds_of_splits, within
from mae_kit.data.packing.unread import find_unread
from mae_kit.errors import BadImage, UserError

log = logging.getLogger(__name__)

_PROBES = 64  # masks that are looked at


class FolderReader(NamedTuple):
    """Reads a file below `root`."""

    root: Path

    def __call__(self, row: int, name: str) -> bytes:
        try:
            return read_file(self.root / name)
        except BadImage:
            check_there(self.root)
            raise


def folder_source(root: Path, labels: str, sizes: dict[str, int], skipped: list[Skip]) -> Source:
    """Images by path; top-level folders train/ and val/ (valid, test, ...) are splits, the classes lie below."""
    layout = recognize(list(sizes), skipped, _masks_by_stem(root, list(sizes), labels))
    names, held_out, left_out = _split_folders(root, layout.paths, labels)
    second = [Skip(name, "of a second held-out split, which is not used") for name in left_out]
    plain = Source(
        kind="folder of images without labels",
        read=FolderReader(root),
        names=names,
        labels=np.full(len(names), -1, np.int64),
        sizes=np.array([sizes[name] for name in names], np.int64),
        held_out=held_out,
        skipped=skipped + layout.skipped + second,
    )
    source = _with_labels(plain, root, layout, labels, sizes, [skip.name for skip in skipped])
    split = source.held_out is not None and source.held_out.any()
    return replace(source, held_out=source.held_out if split else None)


def _with_labels(
    plain: Source, root: Path, layout: Layout, labels: str, sizes: dict[str, int], others: list[str]
) -> Source:
    """The source with the labels that are asked for, or with those that the folder has; `others` are no images."""
    paths = [layout.paths[name][plain.held_out is not None :] for name in plain.names]
    masks = _masks(root, layout, labels)
    boxes = _boxes(root, list(layout.paths), labels, others)
    if labels == "auto":
        _must_be_one_kind(root, layout, masks, boxes, paths)
    if labels not in FROM_SOURCE:
        return _from_table(plain, root, Path(labels), sizes)
    if masks:
        return _masked(plain, root, layout, masks, sizes)
    if boxes is not None:
        return _boxed(plain, boxes, sizes)
    folders = None if labels == "auto" and layout.no_classes else _class_folders(root, paths, labels)
    if folders is not None:
        return _by_folder(plain, folders)
    if labels == "auto" and (unread := find_unread(root, plain.names, others) or _unread_masks(layout)):
        log.warning(f"{root} is packed without labels: {unread}")
    return plain


def _masks_by_stem(root: Path, names: list[str], labels: str) -> list[str]:
    """PNGs that are masks, by what some of them show, of the images of the same folder and stem: a.png next to a.jpg.

    Raises:
        UserError: Only some of these are masks.
    """
    pngs = {os.path.splitext(name)[0]: name for name in names if name.lower().endswith(".png")}
    images = {pngs[stem]: name for name in names if name != pngs.get(stem := os.path.splitext(name)[0], name)}
    if labels == "masks" or not images:
        return list(images)
    some = _probes(list(images))
    found = [shows_classes(read_file(root / name), read_file(root / images[name])) for name in some]
    if labels == "auto" and any(found) and not all(found):
        mask, picture = some[found.index(True)], some[found.index(False)]
        what = f"{root}: {mask} looks like the mask of {images[mask]}, {picture} like a picture"
        raise UserError("shard.labels.stems", what, "choose one: mae-kit shard --labels masks or none")
    return list(images) if all(found) else []


def _probes(names: list[str]) -> list[str]:
    """Some of them, evenly chosen."""
    return [names[number] for number in np.unique(np.linspace(0, len(names) - 1, _PROBES).astype(int))]


def _unread_masks(layout: Layout) -> str:
    if not layout.skipped:
        return ""
    return f"{layout.skipped[0].name} is no mask of classes, which is a gray or palette PNG named like its image"


def _must_be_one_kind(
    root: Path, layout: Layout, masks: dict[str, str], boxes: BoxFiles | None, paths: list[list[str]]
) -> None:
    """Raises UserError where a folder may be read in two ways: which one is meant is not guessed."""
    folders = {path[0] for path in paths if len(path) > 1}
    classes = len(folders) > 1 and all(len(path) > 1 for path in paths) and not layout.no_classes
    found = {"masks": bool(masks), "boxes": boxes is not None}
    found["folders"] = classes if layout.masked or masks else boxes is not None and len(folders & {*boxes.classes}) > 1
    kinds = [kind for kind, there in found.items() if there]
    if len(kinds) > 1 or found["folders"]:
        choices = " or ".join([*kinds, "none"])
        what = (
            f"{root} holds {' and '.join(['masks', *kinds] if kinds == ['folders'] else kinds)}: each may be the labels"
        )
        raise UserError("shard.labels.kinds", what, f"choose one: mae-kit shard --labels {choices}")


def _masks(root: Path, layout: Layout, labels: str) -> dict[str, str]:
    """Masks to pack, by the names of their images: of `auto` where the first one is a mask of classes, no picture.

    Raises:
        UserError: `masks` are asked for, and there are none.
    """
    if labels == "masks" and not layout.masks:
        fix = "put images/NAME.jpg next to masks/NAME.png, or NAME.jpg next to NAME_mask.png"
        raise UserError("shard.labels.masks", f"{root} holds no masks named like its images", fix)
    if labels == "auto" and layout.masks:
        try:
            decode_mask(read_file(root / next(iter(layout.masks.values()))))
        except BadImage:
            return {}
    return layout.masks if labels in ("auto", "masks") else {}


def _masked(plain: Source, root: Path, layout: Layout, masks: dict[str, str], sizes: dict[str, int]) -> Source:
    """Images with their masks; `classes.txt` names the classes."""
    used = {*masks.values(), *layout.alone, CLASSES}
    alone = [Skip(name, "a mask without an image") for name in sorted(layout.alone)]
    of_images = [masks.get(name, "") for name in plain.names]
    bytes_of = [sizes[name] + sizes.get(mask, 0) for name, mask in zip(plain.names, of_images, strict=True)]
    return replace(
        plain,
        kind=f"folder of images with masks ({sum(map(bool, of_images)):,} of {len(of_images):,})",
        sizes=np.array(bytes_of, np.int64),
        classes=read_classes(root),
        skipped=[skip for skip in plain.skipped if skip.name not in used] + alone,
        masks=of_images,
        binary=_are_binary(root, list(masks.values())),
    )


def _are_binary(root: Path, masks: list[str]) -> bool:
    """Whether some masks, evenly chosen, hold 0 and 255 alone; then it is said how they are read."""
    if binary := is_binary(read_file(root / name) for name in _probes(masks)):
        log.info(f"{root}: masks of 0 and 255 are read as classes 0 and 1")
    return binary


def _boxes(root: Path, names: list[str], labels: str, others: list[str]) -> BoxFiles | None:
    """Boxes to pack.

    Raises:
        UserError: `boxes` are asked for, and there are none.
    """
    if labels not in ("auto", "boxes"):
        return None
    found = find_boxes(root, names, others)
    if labels == "boxes" and found is None:
        fix = "give COCO's annotations/instances_*.json, VOC's Annotations/NAME.xml, or YOLO's labels/NAME.txt"
        raise UserError("shard.labels.boxes", f"{root} holds no boxes of its images", fix)
    return found


def _boxed(plain: Source, boxes: BoxFiles, sizes: dict[str, int]) -> Source:
    """Images with their boxes; the lists of a VOC folder split them where no folder does."""
    used = {*boxes.files, *(skip.name for skip in boxes.bad), CLASSES}
    source = replace(plain, skipped=[skip for skip in plain.skipped if skip.name not in used])
    if boxes.held_out is not None and plain.held_out is None:
        source = _split_by_lists(source, boxes.held_out, sizes)
    known = sum(name in boxes.images for name in source.names)
    return replace(
        source,
        kind=f"folder of images with {boxes.kind} boxes ({known:,} of {len(source.names):,})",
        classes=boxes.classes,
        skipped=source.skipped + boxes.bad,
        boxes=[boxes.images.get(name) for name in source.names],
    )


def _split_by_lists(source: Source, held_out: dict[str, bool], sizes: dict[str, int]) -> Source:
    names = [name for name in source.names if name in held_out]
    others = [Skip(name, "in no split that the files of boxes name") for name in source.names if name not in held_out]
    return replace(
        source,
        names=names,
        labels=source.labels[: len(names)],
        sizes=np.array([sizes[name] for name in names], np.int64),
        held_out=np.array([held_out[name] for name in names], bool),
        skipped=source.skipped + others,
    )


def _by_folder(plain: Source, folders: list[str]) -> Source:
    labels, classes = class_labels(folders)
    return replace(plain, kind=f"class folders ({len(classes)} classes)", labels=labels, classes=classes)


def _from_table(plain: Source, root: Path, file: Path, images: Collection[str]) -> Source:
    """Classes, or numbers where no column of the table is one of classes."""
    table = read_table(file)
    if table.has_classes:
        return _classified(plain, read_label_file(file, root, images))
    numbers = read_numbers(table, root, images)
    kind = f"folder of images, each with {', '.join(next(iter(numbers.values())))}"
    return replace(plain, kind=kind, targets=[numbers.get(name) for name in plain.names])


def _classified(plain: Source, file: LabelFile) -> Source:
    number = {name: label for label, name in enumerate(file.classes)}
    values = [file.rows.get(name) for name in plain.names]
    found = [None if value is None else sorted(number[label] for label in value) for value in values]
    kind = f"folder of images, each with {'any number of' if file.several else 'one of'} {len(number)} classes"
    source = replace(plain, kind=kind, classes=file.classes)
    if file.several:
        return replace(source, sets=ClassSets.pack(found))
    return replace(source, labels=np.array([value[0] if value else -1 for value in found], np.int64))


def _split_folders(
    root: Path, paths: dict[str, list[str]], labels: str
) -> tuple[list[str], np.ndarray | None, list[str]]:
    """Names to take, which of them are held out (None without split folders), and names that are not taken.

    Splits next to other folders, or below them, are refused: taken for classes, they would be mixed silently. So are
    several held-out splits without a training split; a single one is all that there is.
    """
    names, tops = list(paths), [path[0] for path in paths.values()]
    folders = sorted({path[0] for path in paths.values()})
    splits = choose_splits(folders)
    if splits is None:
        train, held_out, others = kinds_of_splits(folders)
        fix = "move it away, or rename the folder that is a class, not a split"
        if train and held_out:
            what = f"{root} holds {others[0]} next to the splits {train[0]} and {held_out[0]}"
            raise UserError("shard.splits.others", what, fix)
        if len(held_out) > 1 and not others:
            raise UserError("shard.splits.train", f"{root} holds {' and '.join(held_out)} without train", fix)
        _must_not_hide_splits(root, list(paths.values()))
        if labels != "folders":
            _must_not_name_splits(root, folders)
        return names, np.zeros(len(names), bool) if len(held_out) == len(folders) else None, []
    taken = [(name, splits[top]) for name, top in zip(names, tops, strict=True) if top in splits]
    left_out = [name for name, top in zip(names, tops, strict=True) if top not in splits]
    return [name for name, _ in taken], np.array([held for _, held in taken]), left_out


def _must_not_hide_splits(root: Path, paths: list[list[str]]) -> None:
    below = sorted({path[1] for path in paths if len(path) > 2})
    if all(len(path) > 2 for path in paths) and len(choose_splits(below) or ()) > 1:
        what = f"{root}: the splits {', '.join(below)} are inside other folders, such as {paths[0][0]}"
        fix = "move them up, as in train/CLASS and val/CLASS, or pack each folder separately"
        raise UserError("shard.splits.below", what, fix)


def _must_not_name_splits(root: Path, folders: list[str]) -> None:
    """Folders like train_images beside test_labels."""
    told = {within(folder)[0]: folder for folder in folders}
    train, held_out = (next((told[split] for split in kind if split in told), "") for kind in (TRAIN, HELD_OUT))
    if train and held_out:
        what = f"{root}: {train} and {held_out} may be splits, but other words of the names differ"
        fix = "rename them train and val, or, where they are classes, mae-kit shard --labels folders"
        raise UserError("shard.splits.names", what, fix)


def _class_folders(root: Path, paths: list[list[str]], labels: str) -> list[str] | None:
    """The class folder of each image; None without classes.

    Images outside of the class folders are refused, be they one stray file or a split without such folders (ImageNet's
    val, as downloaded): the labels of all others would be lost silently.
    """
    flat = [path[0] for path in paths if len(path) == 1]
    folders = [path[0] for path in paths if len(path) > 1]
    several = len(set(folders)) > 1
    if flat and (labels == "folders" or (labels == "auto" and several)):
        fix = "move it into one, or pack without labels: mae-kit shard --labels none"
        raise UserError("shard.labels.no_folder", f"{root}: {flat[0]} is in no class folder", fix)
    if labels == "auto" and several and (odd := next(filter(holds_images, sorted(set(folders))), "")):
        other = next(folder for folder in folders if folder != odd)
        fix = "move one away, or, where they are classes, mae-kit shard --labels folders"
        raise UserError("shard.labels.images_folder", f"{root} holds {other} next to {odd}", fix)
    return folders if labels == "folders" or (labels == "auto" and several and not flat) else None


def no_image(root: Path, skipped: list[Skip]) -> UserError:
    """The error for a folder without images; counts what is there instead."""
    suffixes = Counter(Path(skip.name).suffix.lower() for skip in skipped)
    found = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in suffixes.most_common(5))
    what = f"{root} holds no image" + (f" ({found})" if found else "")
    fix = f"give hf:{root}" if ".parquet" in suffixes else "give a folder with images or tars in it"
    return UserError("shard.src.no_image", what, fix)
