"""Files that are whole or not there: the old one or the new one, and nothing beside it."""

import os
from pathlib import Path

import pytest

from mae_kit.durable import replace_text, replacing


def test_replacing_is_all_or_nothing(tmp_path: Path):
    replace_text(tmp_path / "a", "old")
    with pytest.raises(UnicodeEncodeError):
        replace_text(tmp_path / "a", "new \ud800")
    assert (tmp_path / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    replace_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new" and len(list(tmp_path.iterdir())) == 1


def test_it_takes_its_name_only_when_the_disk_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[bool] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (seen.append((tmp_path / "a").exists()), fsync(number)))
    with replacing(tmp_path / "a") as making:
        making.write_bytes(b"1")
    assert seen == [False, True][: 1 if os.name == "nt" else 2], "the file first, then its name"


def test_an_error_names_the_file_that_was_to_be(tmp_path: Path):
    for raised in (OSError(28, "No space left on device"), None):
        with pytest.raises(OSError) as error, replacing(tmp_path / "a"):
            if raised:
                raise raised  # nothing was written: there is nothing to give the name to
        assert error.value.filename == str(tmp_path / "a")


def test_two_writers_do_not_meet(tmp_path: Path):
    with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a").read_text() == "one"
