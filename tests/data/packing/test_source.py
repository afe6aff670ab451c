"""Files of a source that cannot be read: for their own sake, or because a disk, a server or the machine fails."""

import errno
import os
from pathlib import Path

import pytest
from support.errors import raises

from mae_kit.data.packing import source
from mae_kit.data.packing.source import read_file
from mae_kit.errors import BadImage

Failing = dict[str, int]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    """How often a read still fails, and with which number."""
    how, read = Failing(times=0, number=0), Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        how["times"] -= 1
        if how["times"] >= 0:
            raise OSError(how["number"], os.strerror(how["number"]), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    monkeypatch.setattr(source, "PAUSES", [0, 0])
    return how


@pytest.mark.parametrize("name", ["EIO", "ESTALE", "EMFILE", "ENFILE", "EACCES", "ENOENT", "ETIMEDOUT"])
def test_what_fails_once_is_read(tmp_path: Path, failing: Failing, name: str):
    (tmp_path / "a.jpg").write_bytes(b"photo")
    failing |= {"times": 1, "number": getattr(errno, name)}
    assert read_file(tmp_path / "a.jpg") == b"photo"


@pytest.mark.parametrize("name", ["EIO", "ESTALE", "EMFILE", "ENFILE", "ETIMEDOUT"])
def test_a_disk_that_fails_is_no_bad_image(tmp_path: Path, failing: Failing, name: str):
    (tmp_path / "a.jpg").write_bytes(b"photo")
    failing |= {"times": 9, "number": getattr(errno, name)}
    with raises("shard.src.read"):
        read_file(tmp_path / "a.jpg")


def test_a_file_that_may_not_be_read_is_left_out(tmp_path: Path, failing: Failing):
    (tmp_path / "a.jpg").write_bytes(b"photo")
    failing |= {"times": 9, "number": errno.EACCES}
    for file in ("a.jpg", "missing.jpg"):
        with pytest.raises(BadImage, match="cannot be read"):
            read_file(tmp_path / file)
