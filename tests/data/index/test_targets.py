"""Numbers in shards: indexed, saved, and whatever is odd about them reported."""

from pathlib import Path

import numpy as np
import pytest
from support.errors import raises
from support.photo_shards import jpeg, write_members

from mae_kit.data.index.open import open_index
from mae_kit.data.index.targets import Targets, parse_target


def image(number: int) -> tuple[str, bytes]:
    return f"{number}.jpg", jpeg(number)


def test_targets_are_indexed_and_what_is_odd_is_told(tmp_path: Path):
    members = [
        image(0),
        ("0.target.json", b'{"red": 3, "white": 0.5}'),
        image(1),
        image(2),
        ("2.target.json", b'{"red": true, "white": 1}'),
        image(3),
        ("3.target.json", b'{"red": 1}'),
        image(4),
        ("4.target.json", b'{"white": 2, "red": -1}'),
        ("5.target.json", b'{"red": 1, "white": 2}'),
    ]
    write_members(tmp_path / "a.tar", members)
    made, again = open_index(tmp_path), open_index(tmp_path)
    for index in (made, again):
        assert index.targets is not None and index.targets.names == ["red", "white"]
        assert index.targeted().tolist() == [0, 4]
        np.testing.assert_array_equal(index.targets.values[[0, 4]], [[3, 0.5], [-1, 2]])
    told = {problem.key: problem.reason for problem in made.problems}
    assert told["1"] == "image without target" and "no finite number" in told["2"]
    assert "other names" in told["3"] and told["5"] == "target without image"
    assert made.fingerprint == again.fingerprint


def test_shards_of_other_numbers_are_refused(tmp_path: Path):
    for name in ("red", "white"):
        write_members(tmp_path / f"{name}.tar", [image(0), ("0.target.json", f'{{"{name}": 1}}'.encode())])
    with raises("data.targets.differ"):
        open_index(tmp_path)


def test_shards_without_targets_have_none(tmp_path: Path):
    write_members(tmp_path / "a.tar", [image(0), ("0.target.json", b'{"red": 1}')])
    write_members(tmp_path / "b.tar", [image(1)])
    assert open_index(tmp_path).targeted().tolist() == [0]
    part = Targets.pack([{"red": 1.0}, None])
    assert part.rows() == [{"red": 1.0}, None]
    assert part.known.tolist() == [True, False] and part.take(np.array([1])).known.tolist() == [False]


@pytest.mark.parametrize("text", [b"[1]", b"{}", b'{"a": NaN}', b'{"a": 1e999}', b'{"a": "1"}', b"\xff", b"{"])
def test_members_that_are_no_numbers(text: bytes):
    with pytest.raises(ValueError):
        parse_target(text)
