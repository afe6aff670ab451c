"""Files beside shards: made once, while other processes do the same."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.photo_shards import write_shard

from mae_kit.data.index.open import Index, open_index
from mae_kit.data.index.sidecars import Arrays, Sidecars
from mae_kit.files.durable import replacing

EMPTY: Arrays = {"rows": np.empty(0, np.int64), "values": np.empty((0, 2), np.float32)}


def make(part: Index, tick: Callable[[], None]) -> Arrays:
    return {"rows": np.arange(len(part)), "values": np.ones((len(part), 2), np.float32)}


def test_what_another_process_is_writing_is_left_to_it(tmp_path: Path):
    write_shard(tmp_path / "a.tar", range(3))
    index, sidecars = open_index(tmp_path), Sidecars("things", "1", EMPTY)
    (path,) = sidecars.complete(index, make, workers=1)
    stray = path.with_name(f".{path.name}.00.making")
    stray.write_bytes(b"half")
    os.utime(stray, (0, 0))
    with replacing(path) as making:
        making.write_bytes(path.read_bytes())
        assert sidecars.compute(index, make, workers=1)[0]["rows"].tolist() == [0, 1, 2]
        assert making.exists() and not stray.exists()
    assert sidecars.complete(index, make, workers=1) == [path]


@pytest.mark.parametrize(
    "bent",
    [
        {"rows": np.array([0, 1, 3])},
        {"rows": np.array([0, 2, 1])},
        {"rows": np.array([-1, 1, 2])},
        {"rows": np.array([[0, 1, 2]])},
        {"rows": np.arange(2)},
        {"rows": np.arange(3.0)},
        {"values": np.ones((3, 3), np.float32)},
        {"values": np.ones((0, 2), np.float32)},
        {"values": np.array(1, np.float32)},
        {"more": np.ones(3)},
    ],
)
def test_what_a_stranger_put_in_its_place_is_made_again(tmp_path: Path, bent: Arrays):
    """With the right stamp, which anybody can compute."""
    write_shard(tmp_path / "a.tar", range(3))
    index, sidecars = open_index(tmp_path), Sidecars("things", "1", EMPTY)
    (path,) = sidecars.complete(index, make, workers=1)
    sidecars.write(index, make(index, lambda: None) | bent)
    assert sidecars.find(index) is None
    assert sidecars.compute(index, make, workers=1)[0]["values"].tolist() == [[1, 1]] * 3
    path.write_bytes(b"half")
    assert sidecars.find(index) is None
