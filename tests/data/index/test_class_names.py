"""Names of classes, no two alike."""

from pathlib import Path

import pytest
from support.errors import raises

from mae_kit.data.index.class_names import kept_apart, read_classes


@pytest.mark.parametrize(
    ("names", "apart"),
    [
        (["crane", "maillot", "crane", "crane"], ["crane", "maillot", "crane (2)", "crane (3)"]),
        (["a", "a (2)", "a"], ["a", "a (2)", "a (3)"]),
        (["a", "a", "a (2)"], ["a", "a (3)", "a (2)"]),
        (["a (2)", "a (2)", "a"], ["a (2)", "a (2) (2)", "a"]),
    ],
)
def test_the_first_of_a_name_keeps_it(names: list[str], apart: list[str]):
    assert kept_apart(names) == apart == kept_apart(apart)


@pytest.mark.parametrize("text", ["Käse\nBrot\n".encode("latin-1"), "cat\ndog\n".encode("utf-16"), b"c\0a\0t\0\n\0"])
def test_names_that_are_not_utf8_are_refused(tmp_path: Path, text: bytes):
    (tmp_path / "classes.txt").write_bytes(text)
    with raises("data.classes.utf8"):
        read_classes(tmp_path)
