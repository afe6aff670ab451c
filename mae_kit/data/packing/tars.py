"""Tar shards as a source: made by this kit or another program."""

import re
from typing import NamedTuple

import numpy as np

from mae_kit.data.index.listing import Skip
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.index.samples import MASK_SUFFIX, SECOND
from mae_kit.data.packing.boxes import Annotation
from mae_kit.data.packing.source import Source, check_there, class_labels
from mae_kit.data.packing.splits import choose_splits, split_word
from mae_kit.errors import BadImage, UserError

# No dot (a sample id ends there), nothing that a file system minds, short enough for a plain tar header.
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")


class TarReader(NamedTuple):
    """Reads a sample by its row among the rows of an index that are taken."""

    index: Index
    taken: np.ndarray

    def __call__(self, row: int, name: str) -> bytes:
        try:
            read = self.index.read_mask if name.endswith(f".{MASK_SUFFIX}") else self.index.read
            return read(int(self.taken[row]))
        except BadImage:
            check_there(self.index.folder)
            raise


def tar_source(path: str, labels: str) -> Source:
    """Samples of existing shards; labels, classes, splits (by the shards' names) and, where possible, keys are kept."""
    index = open_index(path)
    kept, held_out = _split_shards(index)
    if labels == "folders":
        single, classes = _by_folder(path, [index.keys[row] for row in kept.tolist()])
    else:
        single, classes = index.label[kept], index.classes
    names = [f"{index.shards[index.shard[row]]}/{index.keys[row]}" for row in kept.tolist()]
    keys = [index.keys[row] for row in kept.tolist()]
    masked = [] if index.masks is None or labels in ("none", "folders") else index.masks.known[kept].tolist()
    return Source(
        kind=f"tar shards ({len(index.shards)})",
        read=TarReader(index, kept),
        names=names,
        labels=np.full(len(kept), -1) if labels == "none" else single,
        sets=None if labels != "auto" or index.sets is None else index.sets.take(kept),
        sizes=index.size[kept],
        held_out=held_out,
        classes=None if labels == "none" else classes,
        keys=keys if _fit(keys, held_out) else None,
        skipped=_lost(index),
        masks=[f"{name}.{MASK_SUFFIX}" if one else "" for name, one in zip(names, masked, strict=True)]
        if masked
        else None,
        boxes=_annotations(index, kept) if index.boxes is not None and labels in ("auto", "boxes") else None,
        targets=index.targets.take(kept).rows() if index.targets is not None and labels == "auto" else None,
    )


def _annotations(index: Index, rows: np.ndarray) -> list[Annotation | None]:
    assert index.boxes is not None
    found: list[Annotation | None] = []
    for row, known in zip(rows.tolist(), index.boxes.known[rows].tolist(), strict=True):
        columns = (column.tolist() for column in index.boxes.of(row))
        size = float(index.width[row]), float(index.height[row])
        found.append(Annotation(*columns, frame=size, upright=True) if known else None)
    return found


def _by_folder(path: str, keys: list[str]) -> tuple[np.ndarray, list[str]]:
    """Labels from the first folder in the members' names, and the names of the classes."""
    folders = [key.split("/")[0] if "/" in key else "" for key in keys]
    if "" in folders:
        what = f"{path}: {keys[folders.index('')]} is in no folder inside its tar"
        raise UserError("shard.labels.no_folder_in_tar", what, "leave out --labels")
    return class_labels(folders)


def _fit(keys: list[str], held_out: np.ndarray | None) -> bool:
    """Whether keys can stay: plain, and none twice in one split."""
    splits = np.zeros(len(keys), bool) if held_out is None else held_out
    return len(set(zip(splits.tolist(), keys, strict=True))) == len(keys) and all(map(_PLAIN_KEY.fullmatch, keys))


def _lost(index: Index) -> list[Skip]:
    """Problems that cost a member or hide some; a sample that is there without a valid label is counted elsewhere."""
    there = {(index.shards[shard], key) for shard, key in zip(index.shard.tolist(), index.keys, strict=True)}
    lost = [
        problem
        for problem in index.problems
        if (problem.shard, problem.key) not in there or problem.reason.startswith(SECOND)
    ]
    return [Skip(f"{problem.shard}/{problem.key}".rstrip("/"), problem.reason) for problem in lost]


def _split_shards(index: Index) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows to take, and which of them are held out; shards named train-* and val-* (or test-*) are such splits."""
    tops = [split_word(shard) for shard in index.shards]
    splits = choose_splits(tops)
    if splits is None:
        return np.arange(len(index)), None
    taken = np.array([top in splits for top in tops])[index.shard]
    held = np.array([splits.get(top, False) for top in tops])[index.shard]
    return np.flatnonzero(taken), held[taken] if held.any() else None
