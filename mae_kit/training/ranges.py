"""Ranges of settings: each is declared once, and one function refuses what is outside."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mae_kit.errors import UserError

LARGEST = 2.0**53  # up to here all integers are floats


class Range(NamedTuple):
    """An interval of numbers.

    Attributes:
        low: Smallest value.
        high: Largest value.
        low_open: Whether `low` itself is outside.
        high_open: Whether `high` itself is outside.
        ascending: Whether several values must ascend.
        hint: What helps to find the right value.
    """

    low: float
    high: float = LARGEST
    low_open: bool = False
    high_open: bool = False
    ascending: bool = False
    hint: str = ""

    def holds(self, value: float) -> bool:
        above = self.low < value if self.low_open else self.low <= value
        return above and (value < self.high if self.high_open else value <= self.high)

    def __str__(self) -> str:
        if self.high == LARGEST:
            return f"a number above {self.low:g}" if self.low_open else f"{self.low:g} or more"
        if self.low_open:
            return f"a number above {self.low:g} and at most {self.high:g}{self.hint}"
        if self.high_open:
            return f"a number in [{self.low:g}, {self.high:g})"
        return f"a number from {self.low:g} to {self.high:g}{self.hint}"


POSITIVE = Range(0, low_open=True)
NOT_NEGATIVE = Range(0)
FRACTION = Range(0, 1)
POSITIVE_FRACTION = Range(0, 1, low_open=True)
BELOW_ONE = Range(0, 1, high_open=True)
AREAS = Range(0, 1, low_open=True, ascending=True, hint=": two fractions of the area, the smaller first")
COLORS = Range(0, 1, hint=": statistics of 0-255 divided by 255")


def check_ranges(values: Mapping[str, Any], group: str = "", /, **ranges: Range) -> None:
    """Refuse settings outside their ranges; those that are None are passed over.

    Args:
        values: Settings by name; those that have a range are a number or several.
        group: Of the settings in a recipe: `optimization`.
        **ranges: By name.

    Raises:
        UserError: Its key is the first setting that is outside.
    """
    for name, allowed in ranges.items():
        value = values[name]
        numbers = [] if value is None else list(value) if isinstance(value, Sequence) else [value]
        if not all(map(allowed.holds, numbers)) or (allowed.ascending and numbers != sorted(numbers)):
            key = f"{group}.{name}" if group else name
            raise UserError(key, f"{key} is {value}", f"give {allowed}")
