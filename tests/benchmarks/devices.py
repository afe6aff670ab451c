"""Pretraining steps of a recipe's objective in one process on all cores, and in one process on each core.

python tests/benchmarks/devices.py mae_vit_tiny_64px contrastive_mae_vit_micro_64px
"""

import tempfile
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from command import run
from step import step_of
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from turns import Turn, Way, table, take_turns

from mae_kit.parallel.processes import cores


def devices(names: list[str], batch: int = 256, steps: int = 10) -> dict[str, Any]:
    """Time forward, backward, the sum of gradients over the processes, and AdamW.

    Args:
        names: Pretraining recipes.
        batch: Images a step, over all processes.
        steps: Measured steps of each.

    Returns:
        By recipe, a row of the table for each way; one process on each core is the reference.
    """
    found, count = {}, cores()
    for name in names:
        ways = [Way(f"{count} processes of one thread", partial(together, name, batch, count), batch)]
        ways += [Way(f"one process of {count} threads", partial(step_of, name, batch, count), batch)]
        take_turns(ways, steps)
        found[name] = table(ways)
    return found


def together(name: str, batch: int, count: int) -> Turn:
    """A step of this process, and of others that it starts."""
    store = Path(tempfile.mkdtemp()) / "store"
    context = get_context("spawn")
    for rank in range(1, count):
        context.Process(target=_follow, args=(name, batch // count, store, rank, count), daemon=True).start()
    return _member(name, batch // count, store, 0, count)


def _follow(name: str, batch: int, store: Path, rank: int, count: int) -> None:
    step = _member(name, batch, store, rank, count)
    while True:
        step()


def _member(name: str, batch: int, store: Path, rank: int, count: int) -> Turn:
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    step = step_of(name, batch, 1, partial(DistributedDataParallel, gradient_as_bucket_view=True))

    def turn() -> None:
        distributed.broadcast(torch.zeros(1), 0)  # the others begin when the first one does
        step()

    return turn


if __name__ == "__main__":
    run(devices)
