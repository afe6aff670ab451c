"""Boxes in shards: indexed, saved, and whatever is odd about them reported."""

from pathlib import Path

import numpy as np
import pytest
from support.photo_shards import jpeg, write_members

from mae_kit.data.index.boxes import Boxes, Objects, parse_objects
from mae_kit.data.index.open import open_index

ONE = b'{"boxes": [[1, 2, 3, 4]], "labels": [1]}'


def image(number: int) -> tuple[str, bytes]:
    return f"{number}.jpg", jpeg(number)


def test_boxes_are_indexed_and_what_is_odd_is_told(tmp_path: Path):
    (tmp_path / "classes.txt").write_text("red\nblue\n")
    odd = {
        0: ONE,
        1: b'{"boxes": [], "labels": []}',
        2: b'{"boxes": [[1, 2, 3, 4]], "labels": [2]}',
        3: b'{"boxes": [[1, 2, 9999, 4]], "labels": [1]}',
        4: b'{"boxes": [[3, 2, 3, 4]], "labels": [1]}',
        5: b'{"boxes": [[3, 2, 3]], "labels": [1]}',
    }
    members = [each for number, text in odd.items() for each in (image(number), (f"{number}.boxes.json", text))]
    write_members(tmp_path / "a.tar", [*members, image(6), ("7.boxes.json", ONE)])
    write_members(tmp_path / "b.tar", [image(8)])
    made, again = open_index(tmp_path), open_index(tmp_path)
    for index in (made, again):
        assert index.boxes is not None and index.boxed().tolist() == [0, 1]
        np.testing.assert_array_equal(index.boxes.of(0).xyxy, [[1, 2, 3, 4]])
        assert index.boxes.of(0).label.tolist() == [1] and not len(index.boxes.of(1).label)
    told = {problem.key: problem.kind for problem in made.problems}
    assert told["2"] == "box of a class that is not known" and told["3"] == "box that lies outside its image"
    assert told["4"] == "box without area" and told["5"] == "unreadable boxes"
    assert told["6"] == "image without boxes" and told["7"] == "boxes without image"
    assert made.fingerprint == again.fingerprint
    part = made.within(["a.tar"]).boxes
    assert part is not None and part.count.tolist() == [1, 0, -1, -1, -1, -1, -1]


def test_rows_keep_their_objects():
    one, two = Objects.of([[0, 0, 1, 1]], [3], [0]), Objects.of([[1, 1, 2, 2], [5, 5, 6, 6]], [1, 2], [0, 1])
    boxes = Boxes.pack([two, None, one])
    for part in (boxes.take(np.array([2, 1, 0])), Boxes.join([Boxes.pack([one]), Boxes.unknown(1), Boxes.pack([two])])):
        assert part.count.tolist() == [1, -1, 2] and part.of(2).label.tolist() == [1, 2]
        assert part.of(0).label.tolist() == [3] and part.of(2).crowd.tolist() == [False, True]
    assert parse_objects(two.to_json()).xyxy.tolist() == two.xyxy.tolist()


@pytest.mark.parametrize(
    "text",
    [
        b"[1]",
        b"{}",
        b'{"boxes": [[1, 2, 3, NaN]], "labels": [0]}',
        b'{"boxes": [[1, 2, 3, 4]], "labels": []}',
        b'{"boxes": [[1, 2, 3, 4]], "labels": [-1]}',
        b'{"boxes": [[1, 2, 3, 4]], "labels": [true]}',
        b'{"boxes": [[1, 2, 3, 4]], "labels": [0], "crowd": 1}',
        b'{"boxes": 1, "labels": 1}',
    ],
)
def test_members_that_are_no_boxes(text: bytes):
    with pytest.raises(ValueError):
        parse_objects(text)
