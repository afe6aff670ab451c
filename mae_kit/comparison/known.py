"""What scores are of, and which earlier ones hold still: those of the same weights and the same labeled images."""

import hashlib
import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mae_kit.comparison.stage import digest
from mae_kit.data.index.open import open_index
from mae_kit.data.remote.filesystem import Place
from mae_kit.evaluation.features import MEAN
from mae_kit.weights.encoder_file import FILE, load_encoder

log = logging.getLogger(__name__)

Rows = list[dict[str, Any]]

_NAMED_BY = {"scores": ("method", "layer", "token"), "extents": ("layer", "token"), "trained": ("method",)}


def subject(encoder: Path, train: Place, val: Place) -> dict[str, Any]:
    """The `step` of an encoder, and `fingerprints`: of its `weights`, its `architecture`, and of the two sides.

    Args:
        encoder: Of ours.
        train: Labeled shards to learn from.
        val: Labeled shards to score on.
    """
    config, _ = load_encoder(encoder)
    file = encoder / FILE if encoder.is_dir() else encoder
    prints = {
        "weights": hashlib.sha256(file.read_bytes()).hexdigest()[:16],
        "architecture": digest(asdict(replace(config, step=0))),
        "train": open_index(train).fingerprint,
        "val": open_index(val).fingerprint,
    }
    return {"step": config.step, "fingerprints": prints}


def with_earlier(result: dict[str, Any], path: Path) -> dict[str, Any]:
    """What was found now, and whatever else an earlier evaluation found of the same subject.

    Args:
        result: Of `evaluate`.
        path: The file that holds an earlier one, if there is one.
    """
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else result
    if before.get("fingerprints") != result["fingerprints"]:
        log.warning(f"{path} has held scores of other weights or other images; they are replaced.")
        return result
    return result | {name: _merged(before[name], result[name], keys) for name, keys in _NAMED_BY.items()}


def _merged(before: Rows, now: Rows, keys: tuple[str, ...]) -> Rows:
    """What is asked again is replaced; layer after layer within a method."""
    rows = {tuple(row[key] for key in keys): row for row in [*before, *now]}.values()
    methods = dict.fromkeys(row.get("method") for row in rows)
    order = {name: number for number, name in enumerate(methods)}
    return sorted(rows, key=lambda row: (order[row.get("method")], row.get("layer", 0), row.get("token") != MEAN))
