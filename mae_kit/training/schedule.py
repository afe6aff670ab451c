"""The learning rate as a pure function of the epoch: nothing to save, nothing to restore."""

import math


def learning_rate(epoch: float, *, peak: float, floor: float, warmup_epochs: float, epochs: float) -> float:
    """Linear warm-up from 0, then half a cosine down to the floor (MAE, util/lr_sched.py), asked anew at every step.

    Args:
        epoch: Epochs done, with the fraction of the current one; 0 at the first step.
        peak: Absolute learning rate at the end of the warm-up.
        floor: Absolute learning rate at the end of the run.
        warmup_epochs: Length of the warm-up; 0 for none.
        epochs: Length of the run, warm-up included.
    """
    if epoch < warmup_epochs:
        return peak * epoch / warmup_epochs
    if epoch >= epochs:
        return floor
    progress = (epoch - warmup_epochs) / (epochs - warmup_epochs)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def absolute_learning_rate(base: float, effective_batch: int) -> float:
    """The linear scaling rule.

    Args:
        base: Learning rate for a batch of 256 images, as in MAE.
        effective_batch: Images a step over all devices and accumulated batches.
    """
    return base * effective_batch / 256
