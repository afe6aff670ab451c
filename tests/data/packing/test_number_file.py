"""Tables of numbers: what they say, and what is wrong with them in one line."""

from pathlib import Path

import pytest
from support.errors import raises

from mae_kit.data.packing.label_file import read_label_file, read_table
from mae_kit.data.packing.number_file import read_numbers

IMAGES = ["a.jpg", "b/c.jpg", "d.jpg"]


def read(tmp_path: Path, text: str):
    (tmp_path / "table.csv").write_text(text, encoding="utf-8")
    return read_numbers(read_table(tmp_path / "table.csv"), Path("photos"), IMAGES)


def test_every_other_column_is_a_number(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    found = read(tmp_path, "red,file,white\n12,a.jpg,1e1\n -3.5 ,./b/c.jpg,0\n,d.jpg,4\n")
    assert found == {"a.jpg": {"red": 12, "white": 10}, "b/c.jpg": {"red": -3.5, "white": 0}}
    assert "1 of 3 images in photos have no numbers" in caplog.text


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("shard.labels.columns", "file\na.jpg\n"),
        ("shard.labels.columns", "file,red\n"),
        ("shard.labels.numbers", "file,red,who\na.jpg,1,ann\n"),
        ("shard.labels.numbers", "file,red\na.jpg,nan\n"),
        ("shard.labels.numbers", "file,red\na.jpg,inf\n"),
        ("shard.labels.no_number", "file,red\na.jpg,\n"),
        ("shard.labels.twice", "file,red\na.jpg,1\na.jpg,2\n"),
        ("shard.labels.unknown_images", "file,red\nz.jpg,1\n"),
    ],
)
def test_mistakes(tmp_path: Path, key: str, text: str):
    with raises(key):
        read(tmp_path, text)


def test_labels_that_are_quantities_are_refused(tmp_path: Path):
    (tmp_path / "table.csv").write_text("file,label\na.jpg,1.5\nd.jpg,2\n")
    with raises("shard.labels.ambiguous"):
        read_label_file(tmp_path / "table.csv", Path("photos"), IMAGES)
    (tmp_path / "table.csv").write_text("file,label\na.jpg,1\nd.jpg,2\n")
    assert read_label_file(tmp_path / "table.csv", Path("photos"), IMAGES).classes == ["1", "2"]
