"""Index files that contradict themselves, each in another way."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file


def bend(path: Path, change: Any) -> None:
    """Change head and arrays of an index in place, with a fingerprint that fits."""
    with safe_open(path, "numpy") as file:
        head = json.loads(file.metadata()["mae_kit_index"])
        arrays = {name: file.get_tensor(name).copy() for name in file.keys()}  # noqa: SIM118
    change(head, arrays)
    save_file(arrays, path, {"mae_kit_index": json.dumps(head)})


def put(name: str, value: Any) -> Any:
    return lambda head, arrays: arrays.__setitem__(name, np.full_like(arrays[name], value))


def rename(name: str) -> Any:
    return lambda head, arrays: head.update(stamps={name: next(iter(head["stamps"].values()))})


CHANGES = {
    "negative offsets": put("offset", -5),
    "sizes of 2^62": put("size", 1 << 62),
    "offsets of 2^62": put("offset", 1 << 62),
    "shard numbers": put("shard", 7),
    "negative shard numbers": put("shard", -1),
    "zero widths": put("width", 0),
    "negative heights": put("height", -3),
    "labels": put("label", -9),
    "ids": put("key_stop", 1 << 40),
    "ids backwards": put("key_start", 1 << 40),
    "no column": lambda head, arrays: arrays.pop("crc32"),
    "a short column": lambda head, arrays: arrays.update(label=arrays["label"][:2]),
    "another kind": lambda head, arrays: arrays.update(offset=arrays["offset"].astype(np.float64)),
    "sets": lambda head, arrays: arrays.update(class_count=arrays["shard"] + 9, class_values=arrays["shard"]),
    "no stamps": lambda head, arrays: head.pop("stamps"),
    "stamps that are none": lambda head, arrays: head.update(stamps=[1, 2]),
    "problems that are none": lambda head, arrays: head.update(problems=3),
    "outside": rename("../a.tar"),
    "absolute": rename("/etc/a.tar"),
    "deep": lambda head, arrays: head.update(classes=7),
}
