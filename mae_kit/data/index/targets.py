"""Numbers that images are labeled with, for regression: one or several a sample, from the `.target.json` members."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mae_kit.errors import UserError
from mae_kit.files.json_file import parse_json

MOST = 1000
Target = dict[str, float]


class Targets(NamedTuple):
    """The targets of n samples.

    Attributes:
        names: Of the t numbers.
        values: NaN where a sample has none.
    """

    names: list[str]
    values: Float64[np.ndarray, "n t"]

    @classmethod
    def pack(cls, targets: Iterable[Target | None]) -> "Targets":
        """Of samples that have the same names; None = no target."""
        rows = list(targets)
        names = list(next(row for row in rows if row is not None))
        absent = dict.fromkeys(names, math.nan)
        return cls(names, np.array([[(row or absent)[name] for name in names] for row in rows], np.float64))

    @classmethod
    def unknown(cls, n: int) -> "Targets":
        return cls([], np.empty((n, 0)))

    @classmethod
    def join(cls, parts: Sequence["Targets"]) -> "Targets":
        """Of several shards, some of them without names.

        Raises:
            UserError: Shards name them differently.
        """
        names = next(part.names for part in parts if part.names)
        if different := next((part.names for part in parts if part.names not in ([], names)), None):
            what = f"shards have targets {', '.join(names)} and {', '.join(different)}"
            raise UserError("data.targets.differ", what, "pack all images with one table")
        absent = np.full(len(names), math.nan)
        values = [part.values if part.names else np.tile(absent, (len(part.values), 1)) for part in parts]
        return cls(names, np.concatenate(values))

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The array by name, as an index file holds it."""
        return {"target": self.values}

    @property
    def known(self) -> Bool[np.ndarray, " n"]:
        return ~np.isnan(self.values.sum(axis=1))

    def take(self, rows: Int64[np.ndarray, " m"] | slice) -> "Targets":
        """Those of some samples."""
        return Targets(self.names, self.values[rows])

    def rows(self) -> list[Target | None]:
        """Of each sample its numbers by name."""
        known = zip(self.values.tolist(), self.known.tolist(), strict=True)
        return [dict(zip(self.names, row, strict=True)) if there else None for row, there in known]


def parse_target(text: bytes) -> Target:
    """Read a member: a JSON object of finite numbers.

    Raises:
        ValueError: It holds something else.
    """
    found: Any = parse_json(text)
    if not isinstance(found, dict) or not 0 < len(found) <= MOST:
        raise ValueError("no JSON object of numbers")
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name[:40]} is no finite number")
    return {name: float(value) for name, value in found.items()}
