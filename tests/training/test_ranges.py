"""Settings outside their ranges are refused by their own key."""

import math
from typing import Any

import pytest
from support.errors import raises

from mae_kit.training.ranges import AREAS, BELOW_ONE, FRACTION, NOT_NEGATIVE, POSITIVE, Range, check_ranges


@pytest.mark.parametrize(
    ("allowed", "good", "bad"),
    [
        (POSITIVE, [1, 0.5], [0, -1, math.inf, math.nan, 10**400]),
        (NOT_NEGATIVE, [0, 2], [-1, math.inf]),
        (FRACTION, [0, 1, [0.2, 0.1]], [1.1, [0.5, 2.0]]),
        (BELOW_ONE, [0, 0.99], [1.0, (0.9, 1.0)]),
        (AREAS, [(0.2, 1.0), (1.0, 1.0)], [(0.0, 1.0), (1.0, 0.2)]),
        (Range(-1), [-1, None], [-2]),
    ],
)
def test_a_range_is_kept(allowed: Range, good: list[Any], bad: list[Any]):
    for value in good:
        check_ranges({"size": value}, "data", size=allowed)
    for value in bad:
        with raises("data.size"):
            check_ranges({"size": value, "other": "x"}, "data", size=allowed)
