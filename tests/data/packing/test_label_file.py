"""Tables of labels: what they say, and what is wrong with them in one line."""

from pathlib import Path

import pytest

from mae_kit.data.packing.label_file import read_label_file
from mae_kit.errors import UserError

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


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has no lines under the columns file and label or labels: begin it with the line file,label"),
        ("file,labels\n", "has no lines under"),
        ("name,labels\na.jpg,cat\n", "has no lines under"),
        ("file,label,labels\na.jpg,cat,cat\n", "has no lines under"),
        ("file,labels\na.jpg,cat\ne.jpg,cat\nf.jpg,cat\n", "names 2 files that are no images in photos, such as e.jpg"),
        ("file,labels\na.jpg,cat\na.jpg,dog\n", "has a.jpg twice: keep one of the lines"),
        ("file,labels\na.jpg,\n", "names no class: fill in the column labels"),
        ("file,label\na.jpg\n", "names no class: fill in the column label"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, complaint: str):
    with pytest.raises(UserError) as error:
        read(tmp_path, text)
    assert complaint in str(error.value) and "\n" not in str(error.value)


def test_no_table(tmp_path: Path):
    with pytest.raises(UserError, match=r"no file of labels at .*: give auto, folders, none, or a CSV"):
        read_label_file(tmp_path / "foldres", Path("photos"), IMAGES)
    (tmp_path / "labels.csv").write_bytes(b"file,labels\n\xff\xfe,cat\n")
    with pytest.raises(UserError, match=r"cannot be read as CSV .*: save it as CSV in UTF-8"):
        read_label_file(tmp_path / "labels.csv", Path("photos"), IMAGES)
