"""metrics.jsonl as a table: rows by step, values and clocks over the steps; a run may be going, or have been killed."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

FILE = "metrics.jsonl"

Row = dict[str, Any]


def read_metrics(run: Path) -> list[Row]:
    """The lines of a run by step; where a resumed run repeats a step, its last values win. No file, no rows."""
    steps: dict[int, Row] = {}
    for row in json_lines(run / FILE):
        if isinstance(row.get("step"), int):
            steps.setdefault(row["step"], {}).update(row)
    return [steps[step] for step in sorted(steps)]


def series(rows: list[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a metric, without the steps where it is missing or not finite."""
    pairs = [(row["step"], row[name]) for row in rows if is_finite(row.get(name))]
    both = np.array(pairs, dtype=float).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def running(rows: list[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and readings, over all sittings, of a clock that starts anew with each of them, as `seconds` shows."""
    timed = [row for row in rows if is_finite(row.get(name)) and is_finite(row.get("seconds"))]
    steps, seconds, readings = (np.array([row[key] for row in timed], float) for key in ("step", "seconds", name))
    sittings = np.split(readings, np.flatnonzero(np.diff(seconds) < 0) + 1)
    before = np.cumsum([0, *(sitting.max(initial=0) for sitting in sittings[:-1])])
    return steps, np.concatenate([sitting + start for sitting, start in zip(sittings, before, strict=True)])


def total(rows: list[Row], name: str) -> float:
    """The last reading of such a clock."""
    _, readings = running(rows, name)
    return float(readings.max(initial=0))


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
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
