"""What the user has, as one record: a folder of images, tar shards, or a dataset of another library."""

import glob
import os
import platform
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mae_kit.data.index.class_sets import ClassSets
from mae_kit.data.index.listing import Skip, list_images
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.packing.label_file import LabelFile, read_label_file
from mae_kit.errors import BadImage, UserError

FROM_SOURCE = ("auto", "folders", "none")  # the other ways to give labels are paths of a CSV

# Gives the bytes of sample number so-and-so, called so-and-so; it is pickled to every worker, so it holds little.
Reader = Callable[[int, str], bytes]

TRAIN = ("train", "training")
# Held-out splits in the order in which one of them is taken as `val`; the others are left out, lest two be mixed.
HELD_OUT = ("val", "valid", "validation", "dev", "test", "testing")

# No dot (a key ends there), nothing that a file system minds, short enough for a plain tar header.
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")


@dataclass(frozen=True)
class Source:
    """A listing of n samples and the way to read them.

    Attributes:
        kind: What SRC was taken for, for the user.
        read: Gives the bytes of a sample.
        names: n unique names in sorted or given order; the source is the same while names, sizes and labels are.
        labels: int64 [n]; -1 = none.
        sets: n sets of classes, where images may have any number of them; else None.
        sizes: int64 [n] bytes, or None where only reading would tell.
        held_out: bool [n]: True = val, where the source itself is split; else None.
        classes: Names of the labels, where the source has them.
        keys: n keys to keep, unique in each split, where the source has such.
        skipped: What the listing already left out.
    """

    kind: str
    read: Reader
    names: list[str]
    labels: np.ndarray
    sizes: np.ndarray | None = None
    held_out: np.ndarray | None = None
    classes: list[str] | None = None
    keys: list[str] | None = None
    skipped: list[Skip] = field(default_factory=list)
    sets: ClassSets | None = None


def open_source(src: str, labels: str) -> Source:
    """Find out what SRC is and list it.

    Raises:
        UserError: SRC is missing, empty, holds no image, or needs a library that is absent.
    """
    if labels not in FROM_SOURCE and not Path(src).is_dir():
        raise UserError(
            "sources.open_source",
            f"{labels} names files, and {src} is no folder of images",
            "give the folder they lie in",
        )
    if src.startswith(("hf:", "torchvision:")):
        from mae_kit.data.packing.hubs import open_hub

        return open_hub(src, labels)
    path = Path(src)
    if path.is_dir():
        return _open_folder(path, labels)
    if path.is_file() and path.suffix != ".tar":
        raise UserError(
            "sources.open_source",
            f"{src} is a file",
            "give the folder it lies in, a .tar, or a quoted pattern such as 'DIR/*.tar'",
        )
    if path.is_file() or glob.has_magic(src):
        return tar_source(path, labels)
    raise UserError(
        "sources.open_source",
        f"{src} does not exist",
        "give a folder of images, tar shards, hf:NAME or torchvision:NAME",
    )


def choose_splits(names: Sequence[str]) -> dict[str, bool] | None:
    """Which splits to take, and whether each is held out; None unless all names are those of splits, one `train`.

    Capitals do not count.
    """
    train, held_out, others = _kinds_of_splits(names)
    if not train or others:
        return None
    first = min((name.lower() for name in held_out), key=HELD_OUT.index, default="")
    return {**dict.fromkeys(train, False), **{name: True for name in held_out if name.lower() == first}}


def _kinds_of_splits(names: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Names of what is trained on, of what is held out, and others; each once."""
    kinds: tuple[list[str], list[str], list[str]] = ([], [], [])
    for name in dict.fromkeys(names):
        kinds[0 if name.lower() in TRAIN else 1 if name.lower() in HELD_OUT else 2].append(name)
    return kinds


def _check_there(folder: Path) -> None:
    """A disk that is gone, or a node that never had it, is no reason to leave out image after image."""
    if not folder.is_dir():
        raise UserError(
            "sources.check_there", f"{folder} is not there on {platform.node()}", "mount it and repeat the command"
        )


# A folder of images


class FolderReader(NamedTuple):
    """Reads a file below `root`."""

    root: Path

    def __call__(self, row: int, name: str) -> bytes:
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            _check_there(self.root)
            raise BadImage(f"cannot be read: {error.strerror}") from None


def _open_folder(root: Path, labels: str) -> Source:
    sizes, skipped = list_images(root)
    if sizes:
        return folder_source(root, labels, sizes, skipped)
    if any(Path(skip.name).suffix == ".tar" for skip in skipped) and labels in FROM_SOURCE:
        return tar_source(root, labels)
    found = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in _suffixes(skipped).most_common(5))
    raise UserError(
        "sources.open_folder",
        f"{root} holds no image" + (f" ({found})" if found else ""),
        "give a folder with images or tars in it",
    )


def _suffixes(skipped: list[Skip]) -> Counter[str]:
    return Counter(Path(skip.name).suffix.lower() for skip in skipped)


def folder_source(root: Path, labels: str, sizes: dict[str, int], skipped: list[Skip]) -> Source:
    """Images by path; first-level folders train/ and val/ (valid, test, ...) are splits, the classes lie below."""
    names, held_out, left_out = _split_folders(root, list(sizes))
    if labels not in FROM_SOURCE:
        source = _labeled(root, names, read_label_file(Path(labels), root, sizes))
    else:
        source = _by_folder(root, names, labels, held_out is not None)
    return replace(
        source,
        sizes=np.array([sizes[name] for name in names], np.int64),
        held_out=held_out if held_out is not None and held_out.any() else None,
        skipped=skipped + [Skip(name, "of a held-out split that is not taken") for name in left_out],
    )


def _by_folder(root: Path, names: list[str], labels: str, split: bool) -> Source:
    folders = _class_folders(root, names, labels, split)
    classes = None if folders is None else sorted(set(folders))
    number = {name: label for label, name in enumerate(classes or [])}
    values = [number[folder] for folder in folders] if folders is not None else [-1] * len(names)
    return Source(
        kind="folder of images without labels" if classes is None else f"class folders ({len(classes)} classes)",
        read=FolderReader(root),
        names=names,
        labels=np.array(values, np.int64),
        classes=classes,
    )


def _labeled(root: Path, names: list[str], file: LabelFile) -> Source:
    number = {name: label for label, name in enumerate(file.classes)}
    values = [file.rows.get(name) for name in names]
    found = [None if value is None else sorted(number[label] for label in value) for value in values]
    single = [value[0] if value else -1 for value in found]
    kind = "any number of" if file.several else "one of"
    return Source(
        kind=f"folder of images, each with {kind} {len(number)} classes",
        read=FolderReader(root),
        names=names,
        labels=np.full(len(names), -1, np.int64) if file.several else np.array(single, np.int64),
        sets=ClassSets.pack(found) if file.several else None,
        classes=file.classes,
    )


def _split_folders(root: Path, names: list[str]) -> tuple[list[str], np.ndarray | None, list[str]]:
    """Names to take, which of them are held out (None without split folders), and names that are not taken.

    Splits beside anything else are refused: taken for classes, they would be mixed without a word.
    """
    tops = [name.split(os.sep)[0] for name in names]
    splits = choose_splits(sorted(set(tops)))
    if splits is None:
        train, held_out, others = _kinds_of_splits(sorted(set(tops)))
        if train and held_out:
            what = f"{root} holds {others[0]} beside the splits {train[0]} and {held_out[0]}"
            raise UserError("sources.split_folders", what, "move it away, or rename what is a class and no split")
        return names, None, []
    taken = [(name, splits[top]) for name, top in zip(names, tops, strict=True) if top in splits]
    left_out = [name for name, top in zip(names, tops, strict=True) if top not in splits]
    return [name for name, _ in taken], np.array([held for _, held in taken]), left_out


def _class_folders(root: Path, names: list[str], labels: str, split: bool) -> list[str] | None:
    """The class folder of each image, below the folders of splits where there are such; None without classes.

    Split folders of which one holds class folders and the other none (ImageNet's val, as downloaded) are refused: the
    labels of the first would be lost without a word.
    """
    paths = [name.split(os.sep)[split:] for name in names]
    flat = [name for name, path in zip(names, paths, strict=True) if len(path) == 1]
    folders = [path[0] for path in paths if len(path) > 1]
    several = len(set(folders)) > 1
    if flat and (labels == "folders" or (labels == "auto" and split and several)):
        raise UserError(
            "sources.class_folders",
            f"{root}: {flat[0]} lies in no class folder",
            "move it into one, or use --labels none",
        )
    return folders if labels == "folders" or (labels == "auto" and several and not flat) else None


# Tar shards


class TarReader(NamedTuple):
    """Reads a sample by its row among the rows of an index that are taken."""

    index: Index
    taken: np.ndarray

    def __call__(self, row: int, name: str) -> bytes:
        try:
            return self.index.read(int(self.taken[row]))
        except BadImage:
            _check_there(self.index.folder)
            raise


def tar_source(path: Path, labels: str) -> Source:
    """Samples of existing shards; labels, classes, splits (by the shards' names) and, where possible, keys are kept."""
    if labels == "folders":
        raise UserError("sources.tar_source", "labels from folders need a folder of images", "leave out --labels")
    index = open_index(path)
    kept, held_out = _split_shards(index)
    names = [f"{index.shards[index.shard[row]]}/{index.keys[row]}" for row in kept.tolist()]
    keys = [index.keys[row] for row in kept.tolist()]
    return Source(
        kind=f"tar shards ({len(index.shards)})",
        read=TarReader(index, kept),
        names=names,
        labels=np.full(len(kept), -1) if labels == "none" else index.label[kept],
        sets=None if labels == "none" or index.sets is None else index.sets.take(kept),
        sizes=index.size[kept],
        held_out=held_out,
        classes=None if labels == "none" else index.classes,
        keys=keys if _fit(keys, held_out) else None,
        skipped=_lost(index),
    )


def _fit(keys: list[str], held_out: np.ndarray | None) -> bool:
    """Whether keys can stay: plain, and none twice in one split."""
    splits = np.zeros(len(keys), bool) if held_out is None else held_out
    return len(set(zip(splits.tolist(), keys, strict=True))) == len(keys) and all(map(_PLAIN_KEY.fullmatch, keys))


def _lost(index: Index) -> list[Skip]:
    """Problems that cost a sample or hide some; a sample that is there without a valid label is counted elsewhere."""
    there = {(index.shards[shard], key) for shard, key in zip(index.shard.tolist(), index.keys, strict=True)}
    lost = [problem for problem in index.problems if (problem.shard, problem.key) not in there]
    return [Skip(f"{problem.shard}/{problem.key}".rstrip("/"), problem.reason) for problem in lost]


def _split_shards(index: Index) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows to take, and which of them are held out; shards named train-* and val-* (or test-*) are such splits."""
    words = [set(re.split(r"[^a-z]+", shard.lower())) for shard in index.shards]
    tops = [next((name for name in HELD_OUT if name in found), "train") for found in words]
    splits = choose_splits(tops)
    if splits is None:
        return np.arange(len(index)), None
    taken = np.array([top in splits for top in tops])[index.shard]
    held = np.array([splits.get(top, False) for top in tops])[index.shard]
    return np.flatnonzero(taken), held[taken] if held.any() else None
