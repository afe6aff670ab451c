"""What a pretraining is about, and what it costs: its clocks, and its arithmetic, the same on every machine."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from mae_kit.configured import build
from mae_kit.objectives import Objective
from mae_kit.reporting.folder import read_batch_size, read_metrics, total

BACKWARD = 2  # times the arithmetic of the forward pass: gradients of the inputs, and of the weights


def pretraining_cost(run: Path) -> dict[str, float]:
    """Of a run, as far as it has come: `seconds`, `core_seconds` of all cores together, `images` seen, `flops`.

    Args:
        run: A pretraining, which may not have begun.
    """
    rows = read_metrics(run / "metrics.jsonl")
    if not rows:
        return {}
    images = rows[-1]["step"] * read_batch_size(run)
    clocks = {name: total(rows, name) for name in ("seconds", "core_seconds")}
    return clocks | {"images": images, "flops": images * _flops_per_image_of(run)}


def encoder_of(run: Path) -> dict[str, Any] | None:
    """Class and arguments of the encoder that a run trains; None where it has not begun."""
    return _objective(run)["init_args"]["encoder"] if (run / "config.yaml").is_file() else None


def _objective(run: Path) -> dict[str, Any]:
    return yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["objective"]


@cache
def _flops_per_image_of(run: Path) -> float:
    return flops_per_image(build(_objective(run)))


def flops_per_image(objective: Objective) -> float:
    """Multiplications and additions, each counted, of the matrix products of a training step; crops are not in it."""
    images = torch.zeros(2, objective.encoder.channels, *objective.encoder.image_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        objective(images, torch.arange(2))
    return counter.get_total_flops() * (1 + BACKWARD) / 2
