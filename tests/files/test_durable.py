"""Files that are whole or not there: the old one or the new one, and nothing beside it."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.errors import raises

from mae_kit.comparison.orchestrate import check_folder
from mae_kit.evaluation.feature_files import check_file
from mae_kit.files.durable import append_lines, filling, is_unfinished, replace_text, replacing
from mae_kit.tasks.classes import check_table

DIES = """
import os, sys
from pathlib import Path
from mae_kit.files.durable import replacing
with replacing(Path(sys.argv[1])) as making:
    making.write_text("half")
    os._exit(9)
"""


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


def test_an_error_of_a_disk_that_takes_nothing_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On one mounted for reading, removing what is not there fails, too."""

    def read_only(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(OSError) as error, replacing(tmp_path / "a") as making:
        read_only(making)
    assert error.value.filename == str(tmp_path / "a")


@pytest.mark.skipif(os.name == "nt", reason="permissions of folders")
@pytest.mark.parametrize(
    "check",
    [check_folder, lambda out: check_file(out / "f.npy", "mean"), lambda out: check_table(out / "p.csv")],
    ids=["evaluate and compare", "embed", "predict"],
)
def test_a_folder_that_takes_no_files_is_refused_before_any_work(tmp_path: Path, check: Callable[[Path], None]):
    check(tmp_path / "new/results")
    tmp_path.chmod(0o555)
    for out in (tmp_path, tmp_path / "new/results"):
        with raises("out.folder"):
            check(out)
    tmp_path.chmod(0o755)


def test_two_writers_do_not_meet(tmp_path: Path):
    with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a").read_text() == "one"


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path):
    subprocess.run([sys.executable, "-c", DIES, tmp_path / "a"], check=False)
    (tmp_path / ".notes.making").touch()
    os.utime(tmp_path / ".notes.making", (0, 0))
    assert len(list(tmp_path.iterdir())) == 2
    with replacing(tmp_path / "b") as making:
        making.write_text("b")
        replace_text(tmp_path / "c", "c")
        assert making.exists(), "this process is alive"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".notes.making", "b", "c"]


def test_a_name_as_long_as_the_file_system_allows_can_be_replaced(tmp_path: Path):
    replace_text(tmp_path / ("a" * 250), "text")
    assert (tmp_path / ("a" * 250)).read_text() == "text"


def test_lines_are_appended_whole_or_not_at_all(tmp_path: Path):
    append_lines(tmp_path / "a", ["one"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6, hard))
    try:
        with pytest.raises(OSError):
            append_lines(tmp_path / "a", ["two", "three"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "a").read_text() == "one\n"


def test_a_folder_is_filled_whole_or_not_at_all(tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes").touch()
    with pytest.raises(OSError), filling(out) as making:
        (making / "half").touch()
        raise OSError(28, "No space left on device")
    assert [path.name for path in out.iterdir()] == ["notes"] and not is_unfinished(out)
    with filling(out) as making:
        (making / "whole").touch()
    assert sorted(path.name for path in out.iterdir()) == ["notes", "whole"]


def test_a_folder_that_was_not_there_is_gone_again(tmp_path: Path):
    with pytest.raises(OSError), filling(tmp_path / "new/out"):
        raise OSError(28, "No space left on device")
    assert not (tmp_path / "new/out").exists()


def test_what_a_kill_left_goes_and_what_came_meanwhile_stays(tmp_path: Path):
    (tmp_path / ".unfinished").mkdir()
    (tmp_path / ".unfinished/half").touch()
    (tmp_path / "mine").write_text("kept")
    assert is_unfinished(tmp_path)
    with filling(tmp_path) as making:
        (making / "whole").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "whole"]


def test_a_file_called_like_the_unfinished_is_not_removed(tmp_path: Path):
    (tmp_path / ".unfinished").write_text("mine")
    with pytest.raises(FileExistsError), filling(tmp_path):
        pass
    assert (tmp_path / ".unfinished").read_text() == "mine"
