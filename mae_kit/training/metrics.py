"""metrics.jsonl as a table: rows by step, values over the steps; a run may be going, or have been killed."""

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mae_kit.files.run_folder import RunFolder

_LOSS = b'"loss"'

Row = dict[str, Any]


def read_metrics(run: Path, most: int = sys.maxsize) -> list[Row]:
    """The lines of a run by step; where a resumed run repeats a step, its last values win. No file, no rows.

    Args:
        run: Its folder.
        most: Lines of a kind (losses, scores) to read, evenly spread, the last among them.
    """
    steps: dict[int, Row] = {}
    for line in _spread_lines(RunFolder(run).metrics, most):
        row = json_object(line.decode("utf-8", errors="replace"))
        if isinstance(row.get("step"), int):
            steps.setdefault(row["step"], {}).update(row)
    return [steps[step] for step in sorted(steps)]


def _spread_lines(path: Path, most: int) -> Iterator[bytes]:
    """Lines of a file, read one by one: a long run has a million."""
    if not path.is_file():
        return
    with open(path, "rb") as file:
        counts = Counter(_LOSS in line for line in file)
        file.seek(0)
        seen: Counter[bool] = Counter()
        for line in file:
            kind = _LOSS in line
            seen[kind] += 1
            if seen[kind] == counts[kind] or not (seen[kind] - 1) % -(-counts[kind] // most):
                yield line


def series(rows: list[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a metric, without the steps where it is missing or not finite."""
    pairs = [(row["step"], row[name]) for row in rows if is_finite(row.get(name))]
    both = np.array(pairs, dtype=float).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def clock(rows: list[Row], name: str) -> float:
    """What `seconds` or `core_seconds` has come to over all sittings; the second may fall as loader workers end."""
    return float(series(rows, name)[1].max(initial=0))


def is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def json_lines(path: Path) -> list[Row]:
    """The JSON objects of a file, one a line; a line torn by a kill is left out. No file, no objects."""
    return [row for line in text_of(path).splitlines() if (row := json_object(line))]


def text_of(path: Path) -> str:
    return path.read_text("utf-8", errors="replace") if path.is_file() else ""


def json_object(text: str) -> Row:
    """Empty where it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
