"""What a pretraining run would cost and may gain, before it starts."""

import logging
from typing import Any

from mae_kit.commands.pretrain import PretrainData, fit_to_images, lasting, prepare
from mae_kit.comparison.expected import expectation
from mae_kit.console import console
from mae_kit.objectives import Objective
from mae_kit.training.config import Intervals, Machine, Optimization
from mae_kit.training.fit import bytes_to_write
from mae_kit.training.pace import measure_pace

log = logging.getLogger(__name__)


def plan(
    objective: Objective,
    data: PretrainData,
    optimization: Optimization,
    machine: Machine = Machine(),
    intervals: Intervals = Intervals(),
    finetune: str | None = None,
    minutes: float | None = None,
    labels_per_class: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Estimate what a pretraining run costs on this machine, and quote what we measured for one of that length.

    Measuring the speed takes a few seconds. Nothing is trained, and nothing is written except the index of the images,
    or the shards that a plain folder is packed into.

    Args:
        objective: The objective and its encoder.
        data: The images.
        optimization: Optimizer and learning rate schedule.
        machine: Precision, micro-batches, workers.
        intervals: As in `mae-kit pretrain`.
        finetune: The recipe that fine-tunes this encoder; not used by `plan`.
        minutes: Length of pretraining in minutes, in place of epochs.
        labels_per_class: Labeled images per class in the fine-tuning that follows.
        seed: Seed of weights, order, crops and masks.

    Returns:
        `images` of an epoch, `images_seen` in all, `epochs`, `steps`, `minutes`, `images_per_second`, `bytes` on disk
        and `megabytes` of memory; `expected`, one sentence.

    Raises:
        UserError: As of `pretrain`.
    """
    job = prepare(dict(locals()))
    fit_to_images(objective, job)
    pace = measure_pace(job.module, job.batches, job.stream.plan, machine)
    if minutes is not None:
        job = lasting(minutes, pace, job)
    length = job.stream.plan
    seen = length.steps * length.batch_size
    found = {
        "images": length.samples,
        "images_seen": seen,
        "epochs": length.epochs,
        "steps": length.steps,
        "images_per_second": pace.images_per_second,
        "minutes": seen / pace.images_per_second / 60,
        "bytes": bytes_to_write(job.module),
        "megabytes": pace.megabytes,
        "expected": expectation(type(objective).__name__, seen, length.samples, labels_per_class),
    }
    console.print(
        f"{found['images']:,} images, {found['epochs']:.4g} epochs = {found['steps']:,} steps of {length.batch_size}\n"
        f"{found['minutes']:,.1f} minutes on this machine, at {found['images_per_second']:,.0f} images/s\n"
        f"{found['bytes'] / 1e6:,.0f} MB on disk, {found['megabytes']:,.0f} MB of memory\n"
        f"{found['expected']}",
        highlight=False,
        markup=False,
    )
    return found
