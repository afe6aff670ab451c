"""Tables of labels: what they say, and what is wrong with them in one line."""

from pathlib import Path

import pytest
from support.errors import raises

from mae_kit.data.packing.label_file import read_label_file

IMAGES = ["a.jpg", "b/c.jpg", "d.jpg"]


def read(tmp_path: Path, text: str):
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    return read_label_file(tmp_path / "labels.csv", Path("photos"), IMAGES)


def test_several_classes_an_image(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    found = read(tmp_path, "\ufefffile,labels,width\na.jpg,dog; cat|dog,7\n./b/c.jpg,,7\n")
    assert found.several and found.classes == ["cat", "dog"]
    assert found.rows == {"a.jpg": ["cat", "dog"], "b/c.jpg": []}
    assert "1 of 3 images in photos have no label" in caplog.text


def test_one_class_an_image(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    found = read(tmp_path, 'label,file\n"night; clear",a.jpg\nday,b/c.jpg\n,d.jpg\n')
    assert not found.several and found.classes == ["day", "night; clear"]
    assert found.rows == {"a.jpg": ["night; clear"], "b/c.jpg": ["day"]}
    assert "1 of 3 images" in caplog.text


def test_other_separators_and_names(tmp_path: Path):
    for text in ("file_name;label\na.jpg;cat\n", "filename\tlabel\na.jpg\tcat\n", "path,width,label\na.jpg,7,cat\n"):
        assert read(tmp_path, text).rows == {"a.jpg": ["cat"]}


def test_spaces_behind_separators(tmp_path: Path):
    assert read(tmp_path, 'file, label\na.jpg, "cat"\n').rows == {"a.jpg": ["cat"]}


def test_a_line_with_more_fields_than_columns(tmp_path: Path):
    """A second class behind a comma, which would be lost."""
    with raises("shard.labels.fields"):
        read(tmp_path, "file,labels\na.jpg,cat\nd.jpg,cat,dog\n")
    assert read(tmp_path, "file,label\na.jpg,cat,\n").rows == {"a.jpg": ["cat"]}


def test_a_table_made_on_windows(tmp_path: Path):
    found = read(tmp_path, "file,label\r\n.\\a.jpg,cat\r\nb\\c.jpg,dog\r\n")
    assert found.rows == {"a.jpg": ["cat"], "b/c.jpg": ["dog"]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "file,labels\n",
        "name,labels\na.jpg,cat\n",
        "file,label,labels\na.jpg,cat,cat\n",
        "file,labels\na.jpg,cat\ne.jpg,cat\nf.jpg,cat\n",
        "file,labels\na.jpg,cat\na.jpg,dog\n",
        "file,labels\na.jpg,\n",
        "file,label\na.jpg\n",
        "file,label,label\na.jpg,cat,dog\n",
    ],
)
def test_mistakes(tmp_path: Path, text: str):
    with raises("shard.labels"):
        read(tmp_path, text)


def test_no_table(tmp_path: Path):
    with raises("shard.labels"):
        read_label_file(tmp_path / "foldres", Path("photos"), IMAGES)
    (tmp_path / "labels.csv").write_bytes(b"file,labels\n\xff\xfe,cat\n")
    with raises("shard.labels"):
        read_label_file(tmp_path / "labels.csv", Path("photos"), IMAGES)
