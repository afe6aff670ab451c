"""Files beside shards: made once, while other processes do the same."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from support.photo_shards import write_shard

from mae_kit.data.index.open import Index, open_index
from mae_kit.data.index.sidecars import Arrays, Sidecars
from mae_kit.files.durable import replacing


def make(part: Index, tick: Callable[[], None]) -> Arrays:
    return {"rows": np.arange(len(part))}


def test_what_another_process_is_writing_is_left_to_it(tmp_path: Path):
    write_shard(tmp_path / "a.tar", range(3))
    index, sidecars = open_index(tmp_path), Sidecars("things", "1")
    (path,) = sidecars.complete(index, make, workers=1)
    stray = path.with_name(f".{path.name}.00.making")
    stray.write_bytes(b"half")
    os.utime(stray, (0, 0))
    with replacing(path) as making:
        making.write_bytes(path.read_bytes())
        assert sidecars.compute(index, make, workers=1)[0]["rows"].tolist() == [0, 1, 2]
        assert making.exists() and not stray.exists()
    assert sidecars.complete(index, make, workers=1) == [path]
