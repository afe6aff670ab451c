"""Overhead of remote shards: batches from a folder, and from a web server of the same folder.

python tests/benchmarks/remote.py "DIR/train-*.tar" --mix_shards 2
"""

import functools
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from command import run

from mae_kit.data.index.open import Index, open_index
from mae_kit.data.loading.loader import Loader, TrainBatches
from mae_kit.data.remote.cache import GIGABYTE, Cache


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


def remote(shards: str, mix_shards: int = 2, size: int = 64, batch: int = 256, steps: int = 0) -> dict[str, Any]:
    """Time an epoch of batches, in this process, with shards fetched while others are read.

    Args:
        shards: A pattern of tar shards; indexed before anything is timed.
        mix_shards: Shards mixed at a time.
        size: Pixels a side of the crop.
        batch: Images a batch.
        steps: Batches to time; 0 = one epoch.

    Returns:
        From the folder, from the server through an empty cache, and again through the full one: seconds until the first
        batch; of a batch by the clock and of a core, which a busy machine changes least.
    """
    here = open_index(shards)
    steps = steps or len(here) // batch
    found = {"folder": _time(here, mix_shards, size, batch, steps)}
    with _served(Path(shards).parent) as url, tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder), 100 * GIGABYTE)
        there = open_index(f"{url}/{Path(shards).name}", cache=cache)
        found["server, empty cache"] = _time(there, mix_shards, size, batch, steps)
        found["server, full cache"] = _time(there, mix_shards, size, batch, steps)
    for name, (first, each, core) in found.items():
        times = f"{each * 1000:8.1f} ms a batch, {core * 1000:.1f} of a core, the first after {first * 1000:.0f} ms"
        print(f"{name:22}{times}")
    return {"batches": steps, "seconds": found}


def _time(index: Index, mix: int, size: int, batch: int, steps: int) -> tuple[float, float, float]:
    """Seconds until the first batch; of each on average, by the clock and of a core."""
    batches = TrainBatches(index, np.arange(len(index)), batch, (size, size), mix_shards=mix)
    loader, first = Loader(batches, 0, steps, 0), 0.0
    started, used = time.perf_counter(), time.process_time()
    for _ in loader:
        first = first or time.perf_counter() - started
    loader.close()
    return first, (time.perf_counter() - started) / steps, (time.process_time() - used) / steps


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_serve, args=(folder, theirs), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{mine.recv()}"
    process.terminate()


def _serve(folder: Path, answer: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    answer.send(server.server_address[1])
    server.serve_forever()


if __name__ == "__main__":
    run(remote)
