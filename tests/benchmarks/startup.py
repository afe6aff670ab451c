"""Startup time: `mae-kit --help`, the imports of a training, the first batch.

python tests/benchmarks/startup.py "DIR/train-*.tar"
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from command import run

from mae_kit.data.index.open import open_index
from mae_kit.data.loading.loader import Loader, TrainBatches

GATES = {"mae-kit --help": 0.5, "first batch": 2.0}
"""Seconds that must not be exceeded."""


def startup(shards: str, size: int = 224, batch: int = 256, workers: int = 1, times: int = 5) -> dict[str, Any]:
    """Time what comes before the first step.

    Args:
        shards: A folder of tar shards, or a pattern; indexed before anything is timed.
        size: Pixels a side of the crop.
        batch: Images a batch.
        workers: Loader processes.
        times: How often each is measured; the median counts.

    Returns:
        Median seconds of each, of the clock and of processors: the latter are what a busy machine changes least.
    """
    index = open_index(Path(shards))

    def first_batch() -> None:
        loader = Loader(TrainBatches(index, np.arange(len(index)), batch, (size, size)), 0, 1, workers)
        next(iter(loader))
        loader.close()

    works = {
        "python, for comparison": lambda: _python("-c", "pass"),
        "mae-kit --help": lambda: _python("-m", "mae_kit", "--help"),
        "imports of pretrain": lambda: _python("-c", "import mae_kit.commands.pretrain"),
        "opening the index": lambda: open_index(Path(shards)),
        "first batch": first_batch,
    }
    found = {name: _median(work, times) for name, work in works.items()}
    for name, (seconds, cores) in found.items():
        gate = f"   (at most {GATES[name]:g} s)" if name in GATES else ""
        print(f"{name:24}{seconds:7.3f} s, {cores:.3f} core-seconds{gate}")
    return {"samples": len(index), "seconds": found}


def _python(*words: str) -> None:
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


def _median(work: Callable[[], object], times: int) -> tuple[float, float]:
    """Seconds of the clock, and of processors in this process and those it has started."""
    seconds, cores = [], []
    for _ in range(times):
        started, used = time.perf_counter(), _core_seconds()
        work()
        seconds.append(time.perf_counter() - started)
        cores.append(_core_seconds() - used)
    return statistics.median(seconds), statistics.median(cores)


def _core_seconds() -> float:
    return sum(os.times()[:4])


if __name__ == "__main__":
    run(startup)
