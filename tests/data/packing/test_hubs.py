"""Labels of other libraries: classes, texts, integers, lists, and rows without any."""

from typing import Any

import pytest

from mae_kit.data.packing.hubs import RowReader, _number
from mae_kit.errors import BadImage


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        ([1, 0, None, -1], ["a", "b"], [(1,), (0,), None, None]),
        (["cat", "ant", None], None, [(1,), (0,), None]),
        ([3, 0], None, [(3,), (0,)]),
        ([["b", "a"], ["b"], [], None], None, [(0, 1), (1,), (), None]),
        ([[2, 0], [1]], ["a", "b", "c"], [(0, 2), (1,)]),
    ],
)
def test_labels(values: list[Any], names: list[str] | None, expected: list[Any]):
    found = _number(values, names)
    assert found.classes == expected
    assert found.several == any(isinstance(value, list) for value in values)


@pytest.mark.parametrize("row", [None, (None, 3), {"bytes": None, "path": None}])
def test_a_row_without_an_image_is_left_out(row: Any):
    with pytest.raises(BadImage, match="no image"):
        RowReader([[row]])(0, "train/0")
