"""Names of classes, no two alike."""

import pytest

from mae_kit.data.index.class_names import kept_apart


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
