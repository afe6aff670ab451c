"""The stream of samples that a training goes through: which rows of the shards, and a plan that fixes their order."""

import logging
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from mae_kit.data.index.exclusions import kept
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.loading.batch import Batch
from mae_kit.data.loading.loader import EvaluationBatches, Replica, TrainBatches
from mae_kit.data.resolve import resolve
from mae_kit.errors import UserError
from mae_kit.training.config import Machine, Optimization, Plan
from mae_kit.training.fit import this_replica

log = logging.getLogger(__name__)

Batches = TypeVar("Batches", bound=TrainBatches)


@runtime_checkable
class Streamed(Protocol):
    """What the data part of every recipe says."""

    @property
    def batch_size(self) -> int: ...
    @property
    def exclude(self) -> str | None: ...
    @property
    def mix_shards(self) -> int: ...


class Stream(NamedTuple):
    """Samples in their order.

    Attributes:
        index: The shards.
        rows: Of the index, ascending.
        plan: How long, how they are cut into batches, and the seed of their order.
        replica: Of this process.
    """

    index: Index
    rows: np.ndarray
    plan: Plan
    replica: Replica

    @property
    def micro_batch_size(self) -> int:
        """Images in a micro-batch of one device."""
        return self.plan.batch_size // self.replica.world_size // self.replica.micro_batches

    def batches(
        self,
        image_size: tuple[int, int],
        channels: int,
        crop_scale: tuple[float, float] = (1.0, 1.0),
        kind: type[Batches] = TrainBatches,
    ) -> Batches:
        """What this process takes of it, cropped to a size, or whatever else `kind` makes of it."""
        plan = self.plan
        form = plan.batch_size, image_size, channels, crop_scale
        return kind(self.index, self.rows, *form, plan.seed, self.replica, plan.mix_shards)


def open_stream(shards: str, data: Streamed, optimization: Optimization, machine: Machine, seed: int) -> Stream:
    """All samples of shards that are not left out, with labels or without, to train at one rate in all layers.

    A batch is no larger than the set.

    Raises:
        UserError: The rate falls from layer to layer, a least number of steps, no shards, no such list, fewer samples
            than devices, or a batch that does not divide among the devices.
    """
    if optimization.layer_decay != 1 or optimization.layer_blocks != 1:
        raise UserError(
            "optimization.layer_decay", "layer_decay and layer_blocks are for fine-tuning", "leave them out"
        )
    if optimization.min_steps:
        raise UserError(
            "optimization.min_steps", "min_steps is for fine-tuning", "leave it out; epochs or --minutes set the length"
        )
    cache = machine.shard_cache()
    index = open_index(resolve(shards, "train", machine.pack, cache), cache=cache)
    index.check_mix_shards(data.mix_shards)
    samples = kept(index, data.exclude)
    replica, count = this_replica(machine, data.batch_size), len(samples.rows)
    batch = fitting_batch(data, shards, count, replica)
    plan = Plan(count, batch, optimization.epochs, seed, samples.fingerprint, index.contents, data.mix_shards)
    return Stream(index, samples.rows, plan, replica)


def fitting_batch(data: Streamed, shards: str, images: int, replica: Replica) -> int:
    """The recipe's batch size, or the largest one that so many images fill and the devices divide.

    Raises:
        UserError: `data.batch_size`: there are fewer images than devices and micro-batches.
    """
    parts = replica.world_size * replica.micro_batches
    if images < parts:
        what = f"{shards} has {images} images to train on, fewer than {parts} devices and micro-batches"
        raise UserError("data.batch_size.devices", what, "use fewer devices, or --machine.accumulate_grad_batches 1")
    batch = min(data.batch_size, images - images % parts)
    if batch < data.batch_size:
        log.info(f"{images} images: batches of {batch}, not of data.batch_size {data.batch_size}")
    return batch


def some_images(batches: TrainBatches, count: int) -> Batch:
    """At most so many of the training images, centrally cropped."""
    some = spread_rows(batches, count)
    return EvaluationBatches(batches.index, some, count, batches.image_size, batches.channels)[0]


def spread_rows(batches: TrainBatches, count: int) -> np.ndarray:
    """At most so many rows, evenly chosen from the shards that are needed at once."""
    rows = batches.rows
    near = rows[np.isin(batches.index.shard[rows], batches.order.shards_from(0))]
    return near[np.linspace(0, len(near) - 1, min(count, len(near))).astype(int)]
