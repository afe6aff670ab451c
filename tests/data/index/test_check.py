"""Index files that are bent: none is believed, whether it is made again or refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from support.photo_shards import write_shard

from mae_kit.data.index.index import FILE, load
from mae_kit.data.index.open import open_index


def bent(path: Path, change: Any) -> None:
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


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_contradicts_itself_is_made_again(tmp_path: Path, change: Any, caplog: pytest.LogCaptureFixture):
    write_shard(tmp_path / "a.tar", range(4))
    before = open_index(tmp_path)
    bent(tmp_path / FILE, change)
    assert load(tmp_path / FILE, tmp_path) == ({}, None)
    assert str(tmp_path / FILE) in caplog.text
    again = open_index(tmp_path)
    assert again.fingerprint == before.fingerprint and list(again.keys) == list(before.keys)


@pytest.mark.parametrize("content", [b"", b"{" * 5000, b"\xff" * 64, b"\x10\0\0\0\0\0\0\0" + b"[" * 16])
def test_files_that_are_no_index(tmp_path: Path, content: bytes):
    write_shard(tmp_path / "a.tar", range(4))
    (tmp_path / FILE).write_bytes(content)
    assert len(open_index(tmp_path)) == 4


def test_metadata_nested_without_end(tmp_path: Path):
    save_file({"shard": np.zeros(1, np.int32)}, tmp_path / FILE, {"mae_kit_index": "[" * 100_000})
    assert load(tmp_path / FILE, tmp_path) == ({}, None)
