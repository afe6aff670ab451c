"""What a pretraining takes on GPUs that are not here: memory, hours and cost, by arithmetic."""

import math
from typing import Any, NamedTuple

from mae_kit.comparison.gpus import GPUS, REACHED, USABLE, GpuName
from mae_kit.data.loading.loader import AHEAD, Replica
from mae_kit.encoders.recompute import recompute_blocks
from mae_kit.objectives import Objective
from mae_kit.training.config import Machine, Plan
from mae_kit.training.footprint import Footprint, footprint

WORKERS = 12  # for each GPU, as `Machine.loader_workers` has them at most


class Box(NamedTuple):
    """The machine that is asked about.

    Attributes:
        gpus: How many, one process each.
        gpu: Their kind.
        price: Dollars an hour of one.
        images_per_second: Of one, where it has been measured.
    """

    gpus: int
    gpu: GpuName
    price: float | None = None
    images_per_second: float | None = None

    @property
    def room(self) -> float:
        """Bytes that tensors can have on each."""
        return USABLE * GPUS[self.gpu].gigabytes * 1e9


def on_gpus(objective: Objective, plan: Plan, machine: Machine, box: Box, masks: int = 1) -> dict[str, Any]:
    """Return what each GPU holds, by part, how long all take, and what to change.

    Args:
        objective: Whose statistics are set.
        plan: Of the training.
        machine: Its micro-batches, precision and checkpointing count.
        box: The GPUs.
        masks: Of each image in a step.

    Raises:
        UserError: The batch does not divide among them.
    """
    Replica(0, box.gpus).check_batch_size(plan.batch_size)
    if machine.activation_checkpointing:
        recompute_blocks(objective)
    taken = footprint(objective, machine.precision != "fp32").of_masks(masks)
    taken = taken.split(box.gpus) if machine.strategy == "fsdp" else taken
    images = plan.batch_size // box.gpus
    asked = machine.accumulate_grad_batches
    fits = parts_that_fit(taken, images, box.room)
    parts = (fits or images) if asked == "auto" else asked
    Replica(0, box.gpus, parts).check_batch_size(plan.batch_size)
    memory = taken.parts(images // parts)
    total = sum(memory.values())
    change = [] if total <= box.room else _changes(fits, machine, taken, box)
    pixels = objective.encoder.channels * math.prod(objective.encoder.image_size)
    workers = WORKERS if machine.num_workers < 0 else machine.num_workers
    return {
        "gpus": box.gpus,
        "gpu": box.gpu,
        "accumulate_grad_batches": parts,
        "memory": memory,
        "memory_in_all": total,
        "memory_usable": box.room,
        "fits": total <= box.room,
        "change": change,
        "shared_memory": pixels * (images // parts) * workers * (AHEAD + 1) * box.gpus,
        "flops": taken.flops * plan.steps * plan.batch_size,
    } | _time(taken, plan, box)


def parts_that_fit(taken: Footprint, images: int, room: float) -> int | None:
    """The fewest micro-batches of a GPU's images that fit; None where one image does not."""
    return next((n for n in range(1, images + 1) if images % n == 0 and taken.total(images // n) <= room), None)


def _changes(fits: int | None, machine: Machine, taken: Footprint, box: Box) -> list[str]:
    """What to add to the command so that it fits; the first will do."""
    if fits:
        less = [] if machine.activation_checkpointing else ["--machine.activation_checkpointing true"]
        return [f"--accumulate {fits}", *less]
    if taken.total(0) < box.room and not machine.activation_checkpointing:
        return ["--machine.activation_checkpointing true"]
    if taken.split(box.gpus).total(0) < box.room and machine.strategy != "fsdp":
        return ["--machine.strategy fsdp"]
    return ["a GPU with more memory, or a smaller model"]


def _time(taken: Footprint, plan: Plan, box: Box) -> dict[str, Any]:
    """Hours, cost and images a second, each from the best that may be expected to the worst."""
    seen, peak = plan.steps * plan.batch_size, GPUS[box.gpu].teraflops * 1e12
    paces = [box.images_per_second] * 2 if box.images_per_second else [part * peak / taken.flops for part in REACHED]
    hours = [seen / pace / box.gpus / 3600 for pace in reversed(paces)]  # type: ignore[operator]
    cost = [each * box.gpus * box.price for each in hours] if box.price is not None else None
    return {"images_per_second": [pace * box.gpus for pace in reversed(paces)], "hours": hours, "cost": cost}  # type: ignore[operator]
