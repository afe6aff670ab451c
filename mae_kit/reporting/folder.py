"""What the files of a run folder say, as far as they are there: a run may be going, or have been killed."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

Row = dict[str, Any]


class Folder(NamedTuple):
    """What a page is made of.

    Attributes:
        path: The folder.
        kind: Demo, Comparison, Fine-tuning, Evaluation, Tokenizer or Pretraining.
        training: The folder of the training shown: `path`, but of a demo its pretraining.
        metrics: Of that training, by step.
        config: Its recipe.
        encoder: encoder.json, once a pretraining has ended.
        quarantine: The bad samples it met.
        result: result.json, once a fine-tuning has ended.
        demo: demo.json.
        compared: compare.json.
        evaluation: evaluation.json.
        untrained: evaluation-untrained.json.
    """

    path: Path
    kind: str
    training: Path
    metrics: list[Row]
    config: Row
    encoder: Row
    quarantine: list[Row]
    result: Row
    demo: Row
    compared: Row
    evaluation: Row
    untrained: Row

    @property
    def step(self) -> int | None:
        """That a pretraining has come to, once it has ended; it may have gone on."""
        return max([self.encoder.get("step", 0), *(row["step"] for row in self.metrics)]) if self.encoder else None


def read_folder(path: Path) -> Folder:
    """All that is there; what is missing is empty."""
    result, demo, compared = (_json(path / name) for name in ("result.json", "demo.json", "compare.json"))
    evaluation, untrained = (_json(path / name) for name in ("evaluation.json", "evaluation-untrained.json"))
    training = path / demo.get("pretraining", "")
    config = _yaml(training / "config.yaml")
    return Folder(
        path,
        _kind(demo, compared, result, evaluation or untrained, config),
        training,
        read_metrics(training / "metrics.jsonl"),
        config,
        _json(training / "encoder.json"),
        _json_lines(training / "quarantine.jsonl"),
        result,
        demo,
        compared,
        evaluation,
        untrained,
    )


def _kind(demo: Row, compared: Row, result: Row, evaluation: Row, config: Row) -> str:
    if demo or compared:
        return "Demo" if demo else "Comparison"
    if result or "encoder" in config:
        return "Fine-tuning"
    if evaluation and not config:
        return "Evaluation"
    return "Tokenizer" if "relaxation" in config else "Pretraining"


def read_metrics(path: Path) -> list[Row]:
    """The lines of metrics.jsonl by step; where a resumed run repeats a step, its last values win."""
    steps: dict[int, Row] = {}
    for row in _json_lines(path):
        if isinstance(row.get("step"), int):
            steps.setdefault(row["step"], {}).update(row)
    return [steps[step] for step in sorted(steps)]


def read_batch_size(run: Path) -> int:
    """Images a step, as the recipe of a run says."""
    return int(_yaml(run / "config.yaml")["data"]["batch_size"])


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


def _json_lines(path: Path) -> list[Row]:
    """The JSON objects of a file, one a line; a line torn by a kill is left out. No file, no objects."""
    return [row for line in _text(path).splitlines() if (row := _object(line))]


def _json(path: Path) -> Row:
    return _object(_text(path))


def _yaml(path: Path) -> Row:
    content = yaml.safe_load(_text(path))
    return content if isinstance(content, dict) else {}


def _text(path: Path) -> str:
    return path.read_text("utf-8", errors="replace") if path.is_file() else ""


def _object(text: str) -> Row:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
