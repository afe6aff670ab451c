"""Index files that are bent: none is believed, whether it is made again or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.bent_indexes import CHANGES, bend
from support.photo_shards import write_shard

from mae_kit.data.index.index import FILE, load
from mae_kit.data.index.open import open_index


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_contradicts_itself_is_made_again(tmp_path: Path, change: Any, caplog: pytest.LogCaptureFixture):
    write_shard(tmp_path / "a.tar", range(4))
    before = open_index(tmp_path)
    bend(tmp_path / FILE, change)
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


def test_an_index_of_another_version_is_said_to_be_one(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_shard(tmp_path / "a.tar", range(4))
    open_index(tmp_path)
    bend(tmp_path / FILE, lambda head, arrays: (head.update(version=1), head.pop("targets")))
    assert len(open_index(tmp_path)) == 4
    assert "another version of mae_kit" in caplog.text and "targets" not in caplog.text
