"""The learning rate as a pure function of the epoch: nothing to save, nothing to restore."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

Decay = Literal["cosine", "cosine_from_start", "trapezoid", "steps"]
STEP = 0.1  # of the rate stays after each step (SimMIM, config.py)
COOLDOWN = 0.2  # of the run, at the end of a trapezoid


def learning_rate(
    epoch: float,
    *,
    peak: float,
    floor: float,
    warmup_epochs: float,
    epochs: float,
    decay: Decay = "cosine",
    steps: Sequence[float] = (),
) -> float:
    """Linear warm-up from 0, then down, asked anew at every step.

    Args:
        epoch: Epochs done, with the fraction of the current one; 0 at the first step.
        peak: Absolute learning rate at the end of the warm-up.
        floor: Absolute learning rate at the end of a cosine or trapezoid.
        warmup_epochs: Length of the warm-up; 0 for none.
        epochs: Length of the run, warm-up included.
        decay: cosine = half of one from the end of the warm-up (MAE, util/lr_sched.py); cosine_from_start = half of
            one from the first step, of which the warm-up hides the beginning (timm's CosineLRScheduler, as SimMIM's
            lr_scheduler.py calls it); trapezoid = constant, then linear over the last fifth of the run (Hägele et al.,
            "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", 2024); steps = a tenth from
            each of `steps` on (SimMIM's multistep).
        steps: These epochs, ascending.
    """
    if epoch < warmup_epochs:
        return peak * epoch / warmup_epochs
    if decay == "steps":
        return peak * STEP ** bisect_right(steps, epoch)
    if epoch >= epochs:
        return floor
    if decay == "trapezoid":
        return floor + (peak - floor) * min(1.0, (1 - epoch / epochs) / COOLDOWN)
    start = warmup_epochs if decay == "cosine" else 0.0
    progress = (epoch - start) / (epochs - start)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def absolute_learning_rate(base: float, effective_batch: int) -> float:
    """The linear scaling rule.

    Args:
        base: Learning rate for a batch of 256 images, as in MAE.
        effective_batch: Images a step over all devices and accumulated batches.
    """
    return base * effective_batch / 256
