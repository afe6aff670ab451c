"""What scores are of, and which earlier ones hold still: those of the same weights and the same labeled images."""

import hashlib
import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mae_kit.data.index.open import Index
from mae_kit.evaluation.features import MEAN
from mae_kit.files.run_records import read_record

log = logging.getLogger(__name__)

Rows = list[dict[str, Any]]

_NAMED_BY = {"scores": ("method", "layer", "token"), "extents": ("layer", "token"), "trained": ("method",)}


def subject(encoder: Any, train: Index, val: Index) -> dict[str, Any]:
    """Identify what scores belong to: the `step` of the encoder, and `fingerprints` of all that decides them.

    Args:
        encoder: As `load_encoder` returns it.
        train: Labeled shards to fit to.
        val: Labeled shards to score on.
    """
    config = encoder.pretrained_cfg
    prints = {
        "weights": encoder.fingerprint,
        "architecture": digest(asdict(replace(config, step=0))),
        "train": train.fingerprint,
        "val": val.fingerprint,
    }
    return {"step": config.step, "fingerprints": prints}


def with_earlier(result: dict[str, Any], path: Path) -> dict[str, Any]:
    """What was found now, and whatever else an earlier evaluation found of the same subject.

    Args:
        result: Of `evaluate`.
        path: The file that holds an earlier one, if there is one.
    """
    before = read_record(path) or result
    if before.get("fingerprints") != result["fingerprints"]:
        log.warning(f"{path} held scores of other weights or other images; they are replaced")
        return result
    return result | {name: _merged(before.get(name, []), result[name], keys) for name, keys in _NAMED_BY.items()}


def _merged(before: Rows, now: Rows, keys: tuple[str, ...]) -> Rows:
    """What is asked again is replaced; layer after layer within a method."""
    rows = {tuple(row[key] for key in keys): row for row in [*before, *now]}.values()
    methods = dict.fromkeys(row.get("method") for row in rows)
    order = {name: number for number, name in enumerate(methods)}
    return sorted(rows, key=lambda row: (order[row.get("method")], row.get("layer", 0), row.get("token") != MEAN))


def digest(content: Any) -> str:
    """Return a short hash of anything that JSON can hold, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
