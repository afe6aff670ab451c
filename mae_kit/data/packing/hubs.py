"""Datasets that the libraries `datasets` (Hugging Face) and `torchvision` fetch; imported only when asked for."""

import inspect
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mae_kit.data.index.class_names import kept_apart
from mae_kit.data.index.class_sets import ClassSets
from mae_kit.data.packing.source import FROM_SOURCE, Source, read_file
from mae_kit.data.packing.splits import HELD_OUT, TRAIN, choose_splits
from mae_kit.errors import BadImage, UserError
from mae_kit.files.user_cache import user_cache

log = logging.getLogger(__name__)

_IMAGE_COLUMNS = ("image", "img", "picture", "photo")  # where there are several, such as one of masks
_LABEL_COLUMNS = ("label", "labels", "cls", "class", "category", "target", "fine_label")


class RowReader:
    """Reads row i of several datasets laid end to end.

    Args:
        parts: Datasets whose items are (image, label): image as bytes, path or Pillow image.
    """

    def __init__(self, parts: list[Any]):
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])

    def __call__(self, row: int, name: str) -> bytes:
        part = int(np.searchsorted(self.ends, row, side="right"))
        start = int(self.ends[part - 1]) if part else 0
        return _as_bytes(self.parts[part][row - start])


def open_hub(src: str, labels: str) -> Source:
    """List `hf:NAME[:split]` or `torchvision:NAME[:split]`; without a split train and one held-out split are taken."""
    hub, _, rest = src.partition(":")
    if labels in ("folders", "masks", "boxes") or (hub == "torchvision" and labels not in FROM_SOURCE):
        raise UserError("shard.labels.folders", f"--labels {labels} needs a folder of images", "leave out --labels")
    name, _, split = rest.partition(":")
    if not name:
        raise UserError("shard.hub.no_name", f"{src} names no dataset", f"give {hub}:NAME or {hub}:NAME:SPLIT")
    if hub == "hf":
        return _hugging_face(name, split or None, labels)
    return _torchvision(name, split or None, labels)


class _Labels(NamedTuple):
    """What the rows of several datasets show.

    Attributes:
        classes: Of each row its classes, None where nothing is known.
        names: Of the classes; None where they are numbers.
        several: Whether a row may have any number of classes.
    """

    classes: list[tuple[int, ...] | None]
    names: list[str] | None
    several: bool = False


def _number(values: list[Any], names: list[str] | None) -> _Labels:
    """Make numbers of labels: integers, or texts, alone or in lists; None stays unknown, as does a negative number."""
    several = any(isinstance(value, list | tuple) for value in values)
    each = [[_plain(item) for item in (value if isinstance(value, list | tuple) else [value])] for value in values]
    if several and names is None and _one_hot(each):
        log.info(f"labels are a 0 or 1 for each of {len(each[0])} classes")
        each = [[label for label, shown in enumerate(items) if shown] for items in each]
    known = {item for items in each for item in items if item is not None}
    if names is None and any(isinstance(item, str) for item in known):
        names = sorted(map(str, known))
        number = {name: label for label, name in enumerate(names)}
        each = [[None if item is None else number[str(item)] for item in items] for items in each]
    known_rows = [[int(item) for item in items if item is not None] for items in each]
    rows = [
        None if None in items else tuple(sorted({item for item in row if item >= 0}))
        for items, row in zip(each, known_rows, strict=True)
    ]
    return _Labels(rows if several else [row or None for row in rows], names, several)


def _plain(item: Any) -> Any:
    """A label without what tables do to it: 1.0 is 1, as where another row has none, and an empty text is none."""
    if isinstance(item, float) and item.is_integer():
        return int(item)
    return None if item == "" or item != item else item  # NaN differs from itself


def _one_hot(rows: list[list[Any]]) -> bool:
    """Whether each row has a 0 or 1 for each class, as lists of classes repeat none."""
    same = len({len(row) for row in rows}) == 1 and {item for row in rows for item in row} == {0, 1}
    return same and any(len(row) > len(set(row)) for row in rows)


def _source(kind: str, parts: dict[str, Any], found: _Labels | None, labels: str) -> Source:
    splits = _take(list(parts))
    held_out = np.repeat(np.array([splits[split] for split in parts]), [len(part) for part in parts.values()])
    count = sum(map(len, parts.values()))
    found = None if labels == "none" else found
    single = [row[0] if row else -1 for row in found.classes] if found and not found.several else [-1] * count
    return Source(
        kind=kind,
        read=RowReader(list(parts.values())),
        names=[f"{split}/{row:09d}" for split, part in parts.items() for row in range(len(part))],
        labels=np.array(single, np.int64),
        held_out=held_out if held_out.any() else None,
        classes=None if found is None or found.names is None else kept_apart(found.names),
        sets=ClassSets.pack(found.classes) if found and found.several else None,
    )


def _take(names: list[str]) -> dict[str, bool]:
    """Which splits to take and whether each is held out: train and one other, or all that there are as one."""
    known = [name for name in names if name.lower() in (*TRAIN, *HELD_OUT)]
    return choose_splits(known) or dict.fromkeys(names, False)


def _as_bytes(item: Any) -> bytes:
    """The file of an item's image as it is, or losslessly as PNG where the library hands out pixels."""
    image = (item["bytes"] or item["path"]) if isinstance(item, dict) else item and item[0]
    if image is None:
        raise BadImage("no image in this row")
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        return read_file(Path(image))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


# Hugging Face


class _ImageColumn:
    """One column of undecoded images as a sequence; a Dataset pickles as the paths of its memory-mapped files."""

    def __init__(self, dataset: Any, column: str):
        self.dataset, self.column = dataset, column

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> dict[str, Any] | None:
        return self.dataset[row][self.column]


def _hugging_face(name: str, split: str | None, labels: str) -> Source:
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            "shard.hub.datasets", f"hf:{name} needs the library `datasets`", "pip install 'mae_kit[hf]'"
        ) from None
    try:
        saved = split is None and (Path(name) / "state.json").exists()  # by `save_to_disk`
        found: Any = datasets.load_from_disk(name) if saved else datasets.load_dataset(name, split=split)
    except Exception as error:  # network, hub and script errors of five libraries have no common base
        raise UserError(
            "shard.hub.load", f"hf:{name}: {_first_line(error)}", "check name, split and network, then repeat"
        ) from error
    tables = dict(found) if isinstance(found, Mapping) else {split or "train": found}
    splits = _take(list(tables))
    if left_out := ", ".join(key for key in tables if key not in splits):
        log.info(f"not packed: the split {left_out}")
    tables = {key: table for key, table in tables.items() if key in splits}
    features = next(iter(tables.values())).features
    image = _image_column(name, [key for key, kind in features.items() if isinstance(kind, datasets.Image)], features)
    parts = {
        key: _ImageColumn(table.select_columns([image]).cast_column(image, datasets.Image(decode=False)), image)
        for key, table in tables.items()
    }
    column = None if labels == "none" else _label_column(name, {**features}, image, labels)
    found = None if column is None else _column_labels(tables, features[column], column)
    return _source(f"hf:{name} ({', '.join(parts)})", parts, found, labels)


def _image_column(name: str, found: list[str], features: Mapping[str, Any]) -> str:
    """The column of images; of several, the one that is called so."""
    called = [key for key in found if key.lower() in _IMAGE_COLUMNS]
    if not found:
        what, fix = "has no column of images", "name a dataset of images"
    elif len(found) > 1 and len(called) != 1:
        what, fix = "has several columns of images", "rename the one to pack to `image`"
    else:
        if len(found) > 1:
            log.info(f"images of the column {called[0]}; not packed: {', '.join({*found} - {*called})}")
        return (called or found)[0]
    raise UserError("shard.hub.column", f"hf:{name} {what} ({', '.join(features)})", fix)


def _label_column(name: str, features: Mapping[str, Any], image: str, labels: str) -> str | None:
    """The column that was asked for, else one of classes, else one that is called so."""
    if labels in features:
        return labels
    others = ", ".join(key for key in features if key != image)
    if labels not in FROM_SOURCE:
        raise UserError("shard.labels.column", f"hf:{name} has no column {labels}", f"give one of {others}")
    named = [key for key, kind in features.items() if hasattr(getattr(kind, "feature", kind), "names")]
    named = list(dict.fromkeys([*named, *(key for key in _LABEL_COLUMNS if key in features)]))
    if others and not named:
        log.warning(f"no labels: give --labels COLUMN to take them from one of {others}")
    elif len(named) > 1:
        log.info(f"labels of the column {named[0]}; --labels COLUMN takes another ({', '.join(named[1:])})")
    return named[0] if named else None


def _column_labels(tables: dict[str, Any], kind: Any, column: str) -> _Labels | None:
    """Classes, texts, integers, or lists of these."""
    values = [value for table in tables.values() for value in table[column]]
    items = [_plain(item) for value in values for item in (value if isinstance(value, list) else [value])]
    known = [item for item in items if item is not None]
    if not known or not all(isinstance(item, int | str) for item in known):
        log.warning(f"the column {column} holds neither classes, texts nor integers: packed without labels")
        return None
    return _number(values, getattr(getattr(kind, "feature", kind), "names", None))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


# torchvision


def _torchvision(name: str, split: str | None, labels: str) -> Source:
    try:
        import torchvision.datasets as library
    except ImportError:
        raise UserError(
            "shard.hub.torchvision", f"torchvision:{name} needs the library `torchvision`", "pip install torchvision"
        ) from None
    kind = getattr(library, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, library.VisionDataset)):
        raise UserError(
            "shard.hub.name",
            f"torchvision has no dataset {name}",
            "write it as in torchvision.datasets, such as CIFAR10",
        )
    parts = _torchvision_splits(kind, name, split)
    values = [_labels(part) for part in parts.values()]
    known = all(value is not None for value in values)
    classes = getattr(next(iter(parts.values())), "classes", None)
    if classes is not None:
        classes = [entry if isinstance(entry, str) else entry[0] for entry in classes]
    found = _number([int(value) for part in values for value in part], classes) if known else None
    return _source(f"torchvision:{name} ({', '.join(parts)})", parts, found, labels)


def _torchvision_splits(kind: Any, name: str, split: str | None) -> dict[str, Any]:
    """One dataset a split: the one asked for, or train and the first held-out one that exists."""
    accepted = inspect.signature(kind).parameters
    if "train" in accepted:
        if split not in (None, "train", "test"):
            raise UserError("shard.hub.split", f"torchvision:{name} has no split {split}", "use train or test")
        wanted = [split] if split else ["train", "test"]
        return {key: _fetch(kind, name, train=key == "train") for key in wanted}
    if "split" not in accepted:
        return {"all": _fetch(kind, name)}
    if split:
        return {split: _fetch(kind, name, split=split)}
    parts = {"train": _fetch(kind, name, split="train")}
    for key in HELD_OUT:
        try:
            return {**parts, key: _fetch(kind, name, split=key)}
        except UserError as error:
            if not isinstance(error.__cause__, ValueError):  # this is how torchvision says that there is no such split
                raise
    return parts


def _fetch(kind: Any, name: str, **choice: Any) -> Any:
    """Build the dataset, downloading where it can; `loader`, where there is one, hands over the files undecoded."""
    accepted = inspect.signature(kind).parameters
    folder = user_cache() / "torchvision" / name.lower()
    folder.mkdir(parents=True, exist_ok=True)
    offered = {"root": folder, "download": True, "loader": str}
    try:
        return kind(**{key: value for key, value in offered.items() if key in accepted}, **choice)
    except Exception as error:  # torchvision raises RuntimeError, ValueError, URLError and others
        raise UserError(
            "shard.hub.download", f"torchvision:{name}: {_first_line(error)}", "check split and network, then repeat"
        ) from error


def _labels(dataset: Any) -> Any:
    """All labels without decoding an image; torchvision has several names for them."""
    for attribute in ("targets", "labels", "_labels", "y"):
        values = getattr(dataset, attribute, None)
        if values is not None:
            return values
    pairs = getattr(dataset, "samples", None) or getattr(dataset, "_samples", None)
    return None if pairs is None else [label for _, label in pairs]
