"""Labels of shards: classes common to train and val, and a few samples of each class."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64

from mae_kit.data.index.open import Index
from mae_kit.data.order import permute
from mae_kit.errors import UserError

Kind = Literal["boxes", "masks"]
ROWS = {"boxes": Index.boxed, "masks": Index.masked}
_PACK_BOTH, _PUT_ONE_THERE = "pack both with the same classes", "put one there; line k is the name of class k"
_HOW_TO_PACK = {
    "boxes": "pack images with COCO, VOC or YOLO boxes by `mae-kit shard`",
    "masks": "pack images/NAME.jpg and masks/NAME.png with `mae-kit shard`",
}


def common_classes(train: Index, val: Index, names: tuple[str, str]) -> list[str]:
    """Names of the classes, which both sides must agree on.

    Args:
        train: Shards to learn from.
        val: Shards to score on.
        names: What the user called the two.

    Raises:
        UserError: A side has no labels, or the two have different lists of classes, or one a label an image and the
            other any number, or there is no second class to tell from the first.
    """
    for index, where in zip((train, val), names, strict=True):
        if not len(index.labeled()):
            fix = "pack class folders with `mae-kit shard`, or give labeled shards"
            raise UserError("data.classes.no_labels", f"{where} has no labels", fix)
    if train.multi_label != val.multi_label:
        several, one = names if train.multi_label else names[::-1]
        what = f"images of {several} have any number of classes, those of {one} a single label"
        raise UserError("data.classes.columns", what, "pack both from tables with the same columns")
    if train.multi_label and not (train.classes and val.classes):
        raise UserError("data.classes.missing", f"no classes.txt next to {names[bool(train.classes)]}", _PUT_ONE_THERE)
    if train.classes and val.classes and train.classes != val.classes:
        raise UserError("data.classes.differ", f"{names[0]} and {names[1]} have different classes.txt", _PACK_BOTH)
    count = 1 + max(int(index.label.max()) for index in (train, val))
    classes = train.classes or val.classes or [str(label) for label in range(count)]
    if count > len(classes):
        named = f"classes.txt next to {names[not train.classes]} names {len(classes)}"
        raise UserError("data.classes.too_few", f"there are labels up to {count - 1}, and {named}", _PACK_BOTH)
    if len(classes) < 2 and not train.multi_label:
        what = f"all images of {names[0]} and {names[1]} are of one class"
        raise UserError("data.classes.single", what, "give two classes or more")
    return classes


def listed_classes(train: Index, val: Index, names: tuple[str, str], kind: Kind) -> list[str]:
    """Classes of boxes or masks, which both sides list in one order; other arguments as of `common_classes`.

    Raises:
        UserError: A side has no boxes or masks, or no classes.txt, or another one.
    """
    for index, where in zip((train, val), names, strict=True):
        if not len(ROWS[kind](index)):
            raise UserError(f"data.{kind}", f"{where} has no {kind}", _HOW_TO_PACK[kind])
        if not index.classes:
            raise UserError("data.classes.no_file", f"no classes.txt next to {where}", _PUT_ONE_THERE)
    if train.classes != val.classes:
        what = f"{names[0]} and {names[1]} have different classes.txt"
        raise UserError(f"data.classes.{kind}_differ", what, _PACK_BOTH)
    return train.classes or []


def must_be_apart(train: Index, val: Index, names: tuple[str, str]) -> None:
    """Raises UserError where shards to score on are among those to learn from; arguments as of `common_classes`."""
    places = [index.store.url if index.store else str(index.folder.resolve()) for index in (train, val)]
    common = set(train.shards) & set(val.shards)
    if places[0] == places[1] and common:
        what = f"{names[0]} and {names[1]} are the same images ({min(common)})"
        raise UserError("data.val", what, "hold some out: pack them with mae-kit shard --val-fraction 0.1")


def label_numbers(index: Index) -> Int64[np.ndarray, " n"]:
    """The same number for the same label or set of classes; -1 = none."""
    if index.sets is None:
        return index.label
    numbers = index.sets.numbers()
    single = np.flatnonzero((index.label >= 0) & (numbers < 0))
    numbers[single] = index.label[single] + len(index)
    return numbers


def label_names(index: Index, row: int) -> Sequence[str | int]:
    """Of the classes of a sample; their numbers where they have no names."""
    (labels,) = index.labels(np.array([row]))
    found = np.flatnonzero(labels).tolist() if index.multi_label else [int(labels)] if labels >= 0 else []
    return [index.classes[label] for label in found] if index.classes else found


def class_counts(index: Index, rows: Int64[np.ndarray, " m"], classes: int) -> Int64[np.ndarray, " k"]:
    """Count the labeled samples of each class.

    Args:
        index: The shards.
        rows: Of the index.
        classes: Number of classes.
    """
    single = index.label[rows]
    found = [single[single >= 0], *([index.sets.take(rows).values] if index.sets is not None else [])]
    return np.bincount(np.concatenate(found), minlength=classes)


Labels = Int64[np.ndarray, " n"] | Bool[np.ndarray, "n k"]
"""Class of each sample, or True for each class that it has."""


def draw_per_class(labels: Labels, count: int, seed: int) -> Int64[np.ndarray, " m"]:
    """Places of the first `count` samples of each class in a keyed order, ascending; fewer where there are fewer.

    A sample of several classes may be drawn for each of them.
    """
    shuffled = permute(np.arange(len(labels)), len(labels), seed)
    places, classes = _pairs(labels[shuffled])
    by_class = np.argsort(classes, kind="stable")
    begins = np.searchsorted(classes[by_class], classes[by_class])  # of each one the place of its class's first
    return np.unique(shuffled[places[by_class][np.arange(len(by_class)) - begins < count]])


def draw_fraction(count: int, fraction: float, seed: int) -> Int64[np.ndarray, " m"]:
    """Places of the first `fraction` of so many samples in a keyed order, ascending; at least one."""
    return np.sort(permute(np.arange(max(1, round(fraction * count))), count, seed))


def describe_labels(per_class: int | None, fraction: float | None) -> str:
    """What a training has of the labels, in words."""
    if per_class:
        return f"{per_class} labels per class"
    return f"{100 * fraction:.3g}% of the labels" if fraction else "all labels"


def smallest_class(labels: Labels) -> int:
    """Samples of the class that has the fewest, of those that have any; 0 where none has."""
    counts = labels.sum(axis=0) if labels.ndim == 2 else np.unique_counts(labels).counts
    return int(min(counts[counts > 0], default=0))


def _pairs(labels: Labels) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
    """Samples, in their order, and a class that each has."""
    if labels.ndim == 2:
        samples, classes = np.nonzero(labels)
        return samples, classes
    return np.arange(len(labels)), labels
