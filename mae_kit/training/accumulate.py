"""How many micro-batches a step needs so that each fits into the memory of its device, before the first step."""

import logging
import os
from copy import copy
from dataclasses import replace
from typing import Any

import psutil
import torch

from mae_kit.data.loading.batch import Batch
from mae_kit.data.loading.loader import Replica, TrainBatches
from mae_kit.errors import UserError
from mae_kit.training.config import Machine
from mae_kit.training.fit import prepare_machine
from mae_kit.training.footprint import LiveBytes
from mae_kit.training.module import TrainingModule
from mae_kit.training.precision import half_type
from mae_kit.training.train import Job

log = logging.getLogger(__name__)

_FEW, _MORE = 2, 4  # images that are tried: batch norm wants several, mixup pairs
_USED = 0.8  # of the free memory
_MOMENTS = 2  # copies of the weights that AdamW has


def accumulated(job: Job) -> Job:
    """Choose the micro-batches of a step where the machine says "auto".

    Raises:
        UserError: As of `parts_that_fit`.
    """
    machine, stream = job.machine, job.stream
    if machine.accumulate_grad_batches != "auto":
        return job
    prepare_machine(job.module, machine)
    images = stream.plan.batch_size // stream.replica.world_size
    parts = parts_that_fit(job.module, _some(job.batches), images, machine, free_memory())
    log.info(f"each step accumulates {parts} micro-batches of {images // parts} images, to fit into the free memory")
    stream = stream._replace(replica=replace(stream.replica, micro_batches=parts))
    job.batches.replica = stream.replica
    settings = job.arguments | {"machine": replace(machine, accumulate_grad_batches=parts)}
    return replace(job, stream=stream, arguments=settings)


def _some(batches: TrainBatches) -> Batch:
    """The first four samples of a training, with their labels."""
    few = copy(batches)
    few.batch_size, few.replica = _MORE, Replica()
    return few[0]


def parts_that_fit(module: TrainingModule, batch: Batch, images: int, machine: Machine, free: float) -> int:
    """The fewest micro-batches, each of an even number of images, that fit.

    Args:
        module: Left as it is; it is tried on the processor.
        batch: Four images.
        images: Of a step on one device.
        machine: Its precision counts.
        free: Bytes of the device.

    Raises:
        UserError: `machine.accumulate_grad_batches`: not even two images fit.
    """
    parts_of: Any = [[None if part is None else part[:count] for part in batch] for count in (_FEW, _MORE)]
    few, more = (_peak(module, Batch(*part), machine) for part in parts_of)
    of_image = (more - few) / (_MORE - _FEW)
    weights = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    to_come = _MOMENTS + torch.cuda.is_available()  # on a processor the weights are there already
    fixed = few - _FEW * of_image + to_come * weights
    for parts in range(1, images // 2 + 1):
        if images % (2 * parts) == 0 and of_image * images / parts <= _USED * free - fixed:
            return parts
    needed = of_image * _FEW + fixed
    what = f"{_FEW} images need {needed / 1e9:.3g} GB with gradients and moments, {free / 1e9:.3g} GB are free"
    fix = "give --machine.activation_checkpointing true, fewer processes, or a smaller model or image"
    raise UserError("machine.accumulate_grad_batches.memory", what, fix)


def _peak(module: TrainingModule, batch: Batch, machine: Machine) -> int:
    """Bytes of gradients and activations at the peak of a step."""
    half = half_type(machine.precision)
    with torch.random.fork_rng(), LiveBytes([]) as live:
        with torch.autocast("cpu", half, enabled=half is not None):
            loss = module.loss(batch)["loss"]
        torch.autograd.grad(loss, [p for p in module.parameters() if p.requires_grad], allow_unused=True)
    return live.peak


def free_memory() -> float:
    """Bytes that this process may use of its device: of a GPU, or of this machine's memory or its control group's."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info(int(os.environ.get("LOCAL_RANK", 0)))[0]
    return min(psutil.virtual_memory().available, _of_group()) / int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _of_group() -> float:
    """What a container may still use."""
    try:
        with open("/sys/fs/cgroup/memory.max") as limit, open("/sys/fs/cgroup/memory.current") as used:
            return float(limit.read()) - float(used.read())
    except (OSError, ValueError):  # no group, or "max"
        return float("inf")
