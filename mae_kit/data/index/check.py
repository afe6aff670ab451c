"""An index file held against itself before anything in it is believed: it may come from a stranger's server."""

from typing import Annotated, Any, TypedDict

import numpy as np

from mae_kit.files.plain_types import mismatch

Arrays = dict[str, np.ndarray]

_MOST_CLASSES = 1 << 31


class Head(TypedDict):
    """Metadata of an index file: `stamps` are bytes and time of change of each shard."""

    version: int
    fingerprint: str
    stamps: dict[str, list[Annotated[int, (-1, 2**63 - 1)]]]
    classes: list[str] | None
    problems: list[list[str | int]]
    targets: list[str]


def fault_of(head: Any, arrays: Arrays, columns: dict[str, type]) -> str:
    """What is wrong with the content of an index file; empty where nothing is.

    Args:
        head: Its metadata.
        arrays: All of its arrays.
        columns: The kind of number of each column with a row a sample.

    Raises:
        LookupError, TypeError, ValueError: Something is missing or of another kind altogether.
    """
    if fault := mismatch(head, Head):
        return fault
    sizes = np.array([size for size, _ in head["stamps"].values()], np.int64)
    if any([type(part) for part in problem] != [str, str, int, str] for problem in head["problems"]):
        return "problems of another kind"
    names = list(head["stamps"])
    if any(name != name.strip("/\\") or set(name) & set("/\\\0") or name in ("", ".", "..") for name in names):
        return "names of shards that lie outside the folder"
    if names != sorted(names):
        return "shards out of order"
    kinds = columns | {"shard": np.int32, "key_start": np.int64, "key_stop": np.int64}
    rows = len(arrays["shard"])
    for name, kind in kinds.items():
        if arrays[name].dtype != kind or arrays[name].shape != (rows,):
            return f"{name} is {arrays[name].dtype} {list(arrays[name].shape)}, not {np.dtype(kind)} [{rows}]"
    return _rows_fault(arrays, sizes) or _keys_fault(arrays) or _others_fault(head, arrays, rows, sizes)


def _others_fault(head: Any, arrays: Arrays, rows: int, sizes: np.ndarray) -> str:
    fault = _sets_fault(arrays, rows) or _masks_fault(arrays, sizes) or _boxes_fault(arrays, rows)
    if fault or "target" not in arrays:
        return fault
    target = arrays["target"]
    fits = target.dtype == np.float64 and target.shape == (rows, len(head["targets"])) and not np.isinf(target).any()
    return "" if fits else "targets of another kind"


def _rows_fault(arrays: Arrays, sizes: np.ndarray) -> str:
    shard, offset, size = arrays["shard"], arrays["offset"], arrays["size"]
    if not len(shard):
        return ""
    if shard.min() < 0 or shard.max() >= len(sizes) or (np.diff(shard) < 0).any():
        return "shard numbers out of range or order"
    room = sizes[shard]
    if (offset < 0).any() or (size <= 0).any() or (size > room).any() or (offset > room - size).any():
        return "images that lie outside their shard"
    if min(arrays["width"].min(), arrays["height"].min()) < 1:
        return "images without a pixel"
    return "" if arrays["label"].min() >= -1 and arrays["label"].max() < _MOST_CLASSES else "labels out of range"


def _keys_fault(arrays: Arrays) -> str:
    start, stop, letters = arrays["key_start"], arrays["key_stop"], arrays["key_letters"]
    if letters.dtype != np.uint8 or letters.ndim != 1:
        return "sample ids that are no text"
    if (start < 0).any() or (stop < start).any() or stop.max(initial=0) > len(letters):
        return "sample ids out of range"
    letters.tobytes().decode()
    return ""


def _sets_fault(arrays: Arrays, rows: int) -> str:
    if "class_count" not in arrays:
        return ""
    count, values = arrays["class_count"], arrays["class_values"]
    if count.dtype != np.int32 or values.dtype != np.int32 or count.shape != (rows,) or values.ndim != 1:
        return "sets of classes of another kind"
    whole = np.maximum(count, 0).sum(dtype=np.int64) == len(values)
    in_range = count.min(initial=0) >= -1 and values.min(initial=0) >= 0 and values.max(initial=0) < 1 << 16
    return "" if whole and in_range else "sets of classes out of range"


def _masks_fault(arrays: Arrays, sizes: np.ndarray) -> str:
    if "mask_size" not in arrays:
        return ""
    offset, size, crc32 = (arrays[f"mask_{name}"] for name in ("offset", "size", "crc32"))
    if (offset.dtype, size.dtype, crc32.dtype) != (np.int64, np.int64, np.uint32):
        return "masks of another kind"
    if not offset.shape == size.shape == crc32.shape == arrays["shard"].shape:
        return "masks of other samples"
    room = sizes[arrays["shard"]]
    outside = (offset < 0).any() or (size < 0).any() or (size > room).any() or (offset > room - size).any()
    return "masks that lie outside their shard" if outside else ""


def _boxes_fault(arrays: Arrays, rows: int) -> str:
    if "box_count" not in arrays:
        return ""
    count, xyxy, label, crowd = (arrays[f"box_{name}"] for name in ("count", "xyxy", "label", "crowd"))
    if (count.dtype, xyxy.dtype, label.dtype, crowd.dtype) != (np.int32, np.float32, np.int32, bool):
        return "boxes of another kind"
    total = int(np.maximum(count, 0).sum(dtype=np.int64))
    if count.shape != (rows,) or xyxy.shape != (total, 4) or not label.shape == crowd.shape == (total,):
        return "boxes of other samples"
    fits = np.isfinite(xyxy).all() and count.min(initial=0) >= -1 and label.min(initial=0) >= 0
    return "" if fits else "boxes out of range"
