"""Where there is no home, nothing is written into a folder called `~`."""

from pathlib import Path

import platformdirs
import pytest

from mae_kit.files.user_cache import user_cache


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == platformdirs.user_cache_path("mae_kit") == tmp_path / "mae_kit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as where the system knows no such user
    assert user_cache().is_absolute() and "~" not in str(user_cache())
