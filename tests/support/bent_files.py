"""Files of a run with each of their values replaced by something odd."""

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ODD: list[Any] = [None, True, -1, 0, 2**53 + 1, 10**400, 1e300, math.nan, math.inf, "", "x", "../..", "<b>"]
ODD += [[], [[]], [None], {}, {"a": []}]
GONE = object()
_SEEDS = {"mean": 0.5, "low": 0.4, "high": 0.6, "seeds": [0.4, 0.6]}
_ONE = {"mean": 0.5, "low": None, "high": None, "seeds": [0.5]}
_COST = {"seconds": 9.5, "core_seconds": 20, "steps": 8, "images": 128, "flops": 1e9}
_SCORE = {"top1": 0.5, "low": 0.4, "high": 0.6, "macro_f1": 0.5, "macro_low": 0.4, "macro_high": 0.6}
_ENTRY = {
    "name": "mae",
    "against": "scratch",
    "seeds": 1,
    "recipes": {"pretrain": {"config": "a.yaml", "overrides": {"x": 1}}, "finetune": {"config": "b", "overrides": {}}},
    "scores": {"fine-tuned": _SEEDS, "knn": _ONE},
    "differences": {"knn": _ONE},
    "failures": [{"seed": 0, "verb": "pretrain", "error": "no"}],
    "encoder": {"class_path": "a.B", "init_args": {"name": "vit", "depth": 2}},
    "pretraining": _COST,
    "finetuning": {},
}
RECORDS: dict[str, dict[str, Any]] = {
    "result.json": {
        "top1": 0.5,
        "top5": 1.0,
        "macro_f1": 0.5,
        "balanced_accuracy": 0.5,
        "samples": 4,
        "encoder": "runs/a",
        "val": "0f",
        "classes": ["cat", "dog"],
        "per_class": {"cat": 1.0, "dog": 0.0},
        "of_classes": [{"name": "cat", "images": 2, "precision": 0.5, "recall": 1.0, "f1": 0.7}],
        "confusion": [[2, 0], [2, 0]],
        "labeled_images": 8,
        "candidates": [{"method": "ridge", "cross_validated": 0.5, "top1": 0.5, "low": 0.4, "high": None}],
        "chosen": "ridge",
        "verdict": "Pretraining gives something.",
        "mistakes": [{"file": "a.jpg", "label": "cat", "predicted": "dog", "probability": 0.5}],
    },
    "evaluation.json": {
        "encoder": "runs/a",
        "step": 3,
        "fingerprints": {"weights": "0", "val": "1"},
        "scores": [
            {"method": "knn", "layer": 1, "token": "mean"} | _SCORE,
            {"method": "knn", "layer": 2, "token": "mean"} | _SCORE,
            {"method": "fewshot 5", "layer": 2, "token": "class", "top1": None, "low": None, "high": None},
        ],
        "extents": [{"layer": 2, "token": "mean", "rank": 3.5, "dim": 48, "spread": 0.5, "collapsed": True}],
        "trained": [{"method": "finetune"} | _SCORE, {"method": "attentive", "error": "no"}],
    },
    "compare.json": {
        "images_seen": 128,
        "prints": {"images": "0"},
        "entries": [_ENTRY, _ENTRY | {"name": "scratch", "encoder": None, "pretraining": {}, "recipes": {}}],
    },
    "demo.json": {
        "pretraining": "pretrain",
        "images": None,
        "rows": [{"labels": 10, "scratch": _SEEDS, "pretrained": _SEEDS, "gain": _ONE}],
    },
    "encoder.json": {
        "model": "vit_tiny_patch16_224",
        "model_args": {"img_size": 32},
        "image_size": [32, 32],
        "step": 3,
    },
    "best/score.json": {"step": 3, "metric": "val_top1", "value": 0.5},
    "config.yaml": {
        "objective": {"class_path": "mae_kit.MAE"},
        "data": {"path": "train-*.tar", "batch_size": 16, "flip": True, "labels_per_class": 3, "labels_fraction": 0.5},
        "optimization": {"epochs": 3.0},
        "model": {"name": "vit", "weights": "a.pth"},
        "encoder": "none",
        "finetune": "vit_tiny_64px",
    },
    "metrics.jsonl": {"step": 3, "loss": 0.5, "epoch": 0.5, "seconds": 4.0, "val_top1": 0.5, "images_per_second": 9.0},
    "quarantine.jsonl": {"shard": "a.tar", "key": "1", "offset": 512, "reason": "cut"},
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of all parts of a value, the whole last."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(part, (*path, key))
    yield path


def bent(record: dict[str, Any]) -> Iterator[Any]:
    """The record with each part replaced by something odd, or gone; then what is no record."""
    for path in places(record):
        if path:
            yield from (with_part(record, path, odd) for odd in (*ODD, GONE))
    yield from ODD


def with_part(record: dict[str, Any], path: tuple[Any, ...], part: Any) -> Any:
    """A copy with another value in one place, or without it."""
    changed = copy.deepcopy(record)
    inner: Any = changed
    for key in path[:-1]:
        inner = inner[key]
    if part is GONE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = part
    return changed


def write(run: Path, name: str, content: Any) -> None:
    text = yaml.safe_dump(content) if name.endswith(".yaml") else json.dumps(content)
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text(text + "\n")
