"""What a pretraining run would cost and may gain, before it starts."""

from typing import Any

from mae_kit.commands.pretrain import PretrainData, fit_to_images, lasting, prepare
from mae_kit.comparison.expected import expectation
from mae_kit.comparison.gpus import GPUS, REACHED, GpuName
from mae_kit.comparison.on_gpus import Box, on_gpus
from mae_kit.console import console
from mae_kit.errors import UserError
from mae_kit.objectives import Objective
from mae_kit.training.config import Intervals, Machine, Optimization, Plan
from mae_kit.training.fit import bytes_to_write
from mae_kit.training.pace import measure_pace
from mae_kit.training.ranges import POSITIVE, check_ranges
from mae_kit.training.samples import open_stream


def plan(
    objective: Objective,
    data: PretrainData,
    optimization: Optimization,
    machine: Machine = Machine(),
    intervals: Intervals = Intervals(),
    finetune: str | None = None,
    minutes: float | None = None,
    labels_per_class: int | None = None,
    gpus: int | None = None,
    gpu: GpuName = "h100",
    price: float | None = None,
    images_per_second: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Estimate what a pretraining run costs on this machine or on GPUs, and quote what we measured for one of that
    length.

    On this machine, measuring the speed takes a few seconds. With `--gpus` nothing runs: memory and FLOPs are counted,
    and hours follow from the GPU's published peak and the fraction of it that MAE is known to reach. Nothing is
    trained, and nothing is written except the index of the images, or the shards that a plain folder is packed into.

    Args:
        objective: The objective and its encoder.
        data: The images; with `--gpus` their number is enough, as in `--data 1281167`.
        optimization: Optimizer and learning rate schedule.
        machine: Precision, micro-batches, workers.
        intervals: As in `mae-kit pretrain`.
        finetune: The recipe that fine-tunes this encoder; not used by `plan`.
        minutes: Length of pretraining in minutes, in place of epochs.
        labels_per_class: Labeled images per class in the fine-tuning that follows.
        gpus: Plan for this many GPUs, one process each, in place of this machine; `--data` may then be a number of
            images.
        gpu: Model of the GPUs.
        price: Price of one GPU in dollars per hour.
        images_per_second: Measured images per second of one GPU, in place of an estimate from the peak.
        seed: Seed of weights, order, crops and masks.

    Returns:
        `images` of an epoch, `images_seen` in all, `epochs`, `steps`, `images_per_second`, `bytes` on disk; `expected`,
        one sentence. On this machine, `minutes` and `megabytes` of memory. On GPUs, `images_per_second` and `hours` of
        all of them, and `cost` in dollars, as pairs of the best and the worst estimate; `memory` of each GPU in bytes,
        by part, its sum `memory_in_all`, whether that `fits` into `memory_usable`, and if not, what to `change`;
        `accumulate_grad_batches`, the total `shared_memory` in bytes, and the `flops` of training.

    Raises:
        UserError: As of `pretrain`; or the batch does not divide among the GPUs.
    """
    arguments = dict(locals())
    length, found = _here(arguments) if gpus is None else _there(arguments)
    seen = length.steps * length.batch_size
    expected = expectation(type(objective).__name__, seen, length.samples, labels_per_class)
    counts = {"images": length.samples, "images_seen": seen, "epochs": length.epochs, "steps": length.steps}
    lines = [
        f"{length.samples:,} images, {length.epochs:.4g} epochs = {length.steps:,} steps of {length.batch_size}",
        *(_told_here(found) if gpus is None else _told_there(found)),
        expected,
    ]
    console.print("\n".join(lines), highlight=False, markup=False)
    return counts | found | {"expected": expected}


def _here(arguments: dict[str, Any]) -> tuple[Plan, dict[str, Any]]:
    """Measured on this machine."""
    job = prepare(arguments)
    fit_to_images(arguments["objective"], job)
    pace = measure_pace(job.module, job.batches, job.stream.plan, arguments["machine"])
    if arguments["minutes"] is not None:
        job = lasting(arguments["minutes"], pace, job)
    length = job.stream.plan
    minutes = length.steps * length.batch_size / pace.images_per_second / 60
    found = {"images_per_second": pace.images_per_second, "minutes": minutes, "bytes": bytes_to_write(job.module)}
    return length, found | {"megabytes": pace.megabytes}


def _told_here(found: dict[str, Any]) -> list[str]:
    return [
        f"{found['minutes']:,.1f} minutes on this machine, at {found['images_per_second']:,.0f} images/s",
        f"{found['bytes'] / 1e6:,.0f} MB on disk, {found['megabytes']:,.0f} MB of memory",
    ]


def _there(arguments: dict[str, Any]) -> tuple[Plan, dict[str, Any]]:
    """Counted for GPUs.

    Raises:
        UserError: `minutes`: what a GPU does in them was not measured.
    """
    objective = arguments["objective"]
    if arguments["minutes"] is not None:
        raise UserError(
            "minutes.gpus", "--minutes needs the measured speed of this machine", "give --epochs with --gpus"
        )
    box = Box(*(arguments[name] for name in Box._fields))
    check_ranges(box._asdict(), gpus=POSITIVE, price=POSITIVE, images_per_second=POSITIVE)
    channels = objective.encoder.channels
    objective.set_statistics([0.5] * channels, [0.5] * channels)
    objective.load_state_dict(objective.state_dict())  # a palette of any colors will do
    length = _length(arguments)
    found = on_gpus(objective, length, arguments["machine"], box, arguments["data"].masks)
    return length, found | {"bytes": bytes_to_write(objective)}


def _length(arguments: dict[str, Any]) -> Plan:
    """The length of training; the images may be given as a number."""
    data, optimization, machine, seed = (arguments[name] for name in ("data", "optimization", "machine", "seed"))
    if data.path.isdecimal():
        images = int(data.path)
        return Plan(images, min(data.batch_size, images), optimization.epochs, seed)
    return open_stream(data.path, data, optimization, machine, seed).plan


def _told_there(found: dict[str, Any]) -> list[str]:
    of_part = ", ".join(f"{name} {size / 1e9:.3g}" for name, size in found["memory"].items())
    held, whole = found["memory_in_all"] / 1e9, GPUS[found["gpu"]].gigabytes
    (best, worst), (slow, fast) = found["hours"], sorted(found["images_per_second"])
    range_of = "as measured" if best == worst else f"at {REACHED[1]:.0%} to {REACHED[0]:.0%} of the published peak"
    cost = f", ${found['cost'][0]:,.0f} to ${found['cost'][1]:,.0f}" if found["cost"] else ""
    count = found["accumulate_grad_batches"]
    parts = f"{found['gpus']} x {found['gpu']}, {count} micro-batch{'es' * (count != 1)} per step"
    lines = [
        f"{parts}: {held:.3g} of {whole:g} GB on each ({of_part})",
        f"{best:,.3g} to {worst:,.3g} hours {range_of}{cost}; {found['flops']:.3g} FLOPs",
        f"{slow:,.0f} to {fast:,.0f} images/s to decode; {found['shared_memory'] / 1e9:.2g} GB of shared memory; "
        f"{found['bytes'] / 1e9:.3g} GB on disk",
    ]
    return lines + [f"this does not fit: {' or '.join(found['change'])}"] * (not found["fits"])
