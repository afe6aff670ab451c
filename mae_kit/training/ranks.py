"""Ranks that were started differently would train on, and drift apart: they are refused before the first step."""

import json
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from mae_kit.errors import UserError
from mae_kit.files.recipe_file import flat
from mae_kit.version import __version__

MACHINE = ("run", "encoder", "init", "data.path", "data.val", "data.knn_shards", "data.exclude", "machine.num_workers")
MACHINE += ("machine.threads", "machine.cache", "machine.cache_size", "machine.compile")
MACHINE += ("machine.activation_checkpointing",)
"""Settings that may differ from machine to machine: places and speed. What lies there has to be the same."""


class SameOnAllRanks(Callback):
    """Compares what the ranks were started with, before anything is written.

    Args:
        settings: The plan and the arguments of the command, plain values.
        begin: Called where all ranks agree: makes the folder of the run.
    """

    def __init__(self, settings: dict[str, Any], begin: Callable[[], None]):
        self.begin = begin
        versions = {"mae_kit": __version__, "torch": torch.__version__}
        told = {key: json.dumps(value, default=str) for key, value in flat(settings | {"version": versions}).items()}
        self.settings = {key: value for key, value in told.items() if key not in MACHINE}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raises UserError on all ranks where two differ, by the key of the first setting that does."""
        of_ranks: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(of_ranks, self.settings)
        check_same(of_ranks)
        self.begin()


def check_same(of_ranks: list[dict[str, Any]]) -> None:
    """Raises UserError where a rank has other settings than the first."""
    first = of_ranks[0]
    for rank, other in enumerate(of_ranks):
        for key in dict.fromkeys((*first, *other)):
            if first.get(key) != other.get(key):
                what = f"rank {rank} has {key} {other.get(key)}, rank 0 has {first.get(key)}"
                raise UserError(key, what, "start all ranks with the same command, data and version")
