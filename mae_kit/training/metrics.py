"""metrics.jsonl as a table: rows by step, values over the steps; a run may be going, or have been killed."""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mae_kit.files.json_file import parse_json
from mae_kit.files.run_folder import RunFolder

KNN_IMAGES = "knn_images"  # how many images a kNN score is of
MOST = sys.float_info.max
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
        row = json_object(line)
        if type(row.get("step")) is int and is_finite(row["step"]):
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
    return isinstance(value, int | float) and abs(value) <= MOST


def json_lines(path: Path) -> list[Row]:
    """The JSON objects of a file, one a line; a line torn by a kill is left out. No file, no objects."""
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return [row for line in lines if (row := json_object(line))]


def json_object(text: bytes) -> Row:
    """Empty where it is none."""
    try:
        value = parse_json(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
