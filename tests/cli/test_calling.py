"""Commands called from Python: a path may be a string."""

from pathlib import Path
from typing import Any

import pytest
from support.photo_shards import jpeg

import mae_kit
from mae_kit.cli.calling import with_any_path


def test_paths_may_be_strings_and_strings_paths(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(jpeg(0))
    verbs: Any = mae_kit
    packed = verbs.shard(tmp_path / "photos", str(tmp_path / "shards"), workers=1)
    assert packed["splits"]["train"]["images"] == 1 and (tmp_path / "shards/stats.json").is_file()


def test_only_what_is_asked_for_is_turned():
    def verb(path: Path | None, place: str | Path, name: str, images: list[str | Path], count: int = 0) -> list[object]:
        return [path, place, name, images, count]

    call = with_any_path(verb)
    assert call("a", "b", Path("c"), "d", count=1) == [Path("a"), "b", "c", ["d"], 1]
    assert call(None, Path("b"), "c", ["d", Path("e")]) == [None, Path("b"), "c", ["d", Path("e")], 0]
    with pytest.raises(TypeError, match="missing a required argument: 'place'"):
        call("a")
