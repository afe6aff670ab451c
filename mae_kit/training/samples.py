"""The stream of samples that a training goes through: which rows of the shards, and a plan that fixes their order."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from mae_kit.data.index.exclusions import Kept, kept
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.loading.batch import Batch
from mae_kit.data.loading.loader import EvaluationBatches, Replica, TrainBatches
from mae_kit.data.resolve import resolve
from mae_kit.errors import UserError
from mae_kit.training.config import Machine, Optimization, Plan
from mae_kit.training.fit import this_replica


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

    def batches(self, image_size: tuple[int, int], channels: int, crop_scale: tuple[float, float]) -> TrainBatches:
        """What this process takes of it, cropped to a size."""
        plan = self.plan
        form = plan.batch_size, image_size, channels, crop_scale
        return TrainBatches(self.index, self.rows, *form, plan.seed, self.replica, plan.mix_shards)


def open_stream(shards: str, data: Streamed, optimization: Optimization, machine: Machine, seed: int) -> Stream:
    """All samples of shards that are not left out, with labels or without, to train at one rate in all layers.

    Raises:
        UserError: The rate falls from layer to layer, a least number of steps, no shards, no such list, fewer samples
            than a batch, or a batch that does not divide among the devices.
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
    if count < data.batch_size:
        raise UserError(
            "data.batch_size.too_large",
            f"{shards} holds {count} images, fewer than data.batch_size {data.batch_size}",
            f"give --data.batch_size {2 ** (count.bit_length() - 1)} or less",
        )
    return Stream(index, samples.rows, plan_for(index, samples, samples.rows, data, optimization, seed), replica)


def plan_for(
    index: Index, samples: Kept, rows: np.ndarray, data: Streamed, optimization: Optimization, seed: int
) -> Plan:
    """The plan of a training on some rows among the samples of an index."""
    held = samples.fingerprint, index.contents
    return Plan(len(rows), data.batch_size, optimization.epochs, seed, *held, data.mix_shards)


def some_images(batches: TrainBatches, count: int) -> Batch:
    """At most so many of the training images, centrally cropped."""
    some = spread_rows(batches, count)
    return EvaluationBatches(batches.index, some, count, batches.image_size, batches.channels)[0]


def spread_rows(batches: TrainBatches, count: int) -> np.ndarray:
    """At most so many rows, evenly chosen from the shards that are needed at once."""
    rows = batches.rows
    near = rows[np.isin(batches.index.shard[rows], batches.order.shards_from(0))]
    return near[np.linspace(0, len(near) - 1, min(count, len(near))).astype(int)]
