"""A Ray cluster: one Ray task per task, started again elsewhere where a worker or a whole node dies.

A node that was cut off but lives may finish a task that another one has started again: tasks write under their own name
by rename, so both attempts leave the same file.
"""

import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from math import inf
from typing import Any

from mae_kit.errors import UserError
from mae_kit.parallel.processes import Advance, T, Work, cores

log = logging.getLogger(__name__)

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read as Ray is imported
try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ImportError:
    raise UserError("engine.library", "--engine ray needs the library `ray`", "pip install 'mae_kit[ray]'") from None

_RETRIES = 3
_PATIENCE = 60  # seconds for stopped tasks to clean up; a node that is cut off never answers
_EVERY = 0.5  # seconds between two questions of a task whether to stop


def run_on_ray(work: Work[T], tasks: Sequence[T], advance: Advance, workers: int = 0) -> None:
    """Call `work(task, tick)` for every task, in any order, on the running cluster or, without one, on this machine.

    The cluster is that of RAY_ADDRESS, or the one this machine belongs to. Every node needs mae_kit, and sees the files
    that the tasks name under the same path; relative ones count from the folder this process works in. A task takes one
    processor. Its steps are counted when it ends.

    Raises:
        UserError: RAY_ADDRESS does not answer, or a task was lost too often.
        Exception: Whatever a task raised first; the other tasks were stopped.
    """
    if not tasks:
        return
    with _cluster(workers):
        shared, folder = ray.put(work), os.getcwd()
        halt, waiting, running = _Halt.remote(), iter(tasks), []
        try:
            while True:
                more = islice(waiting, _room(workers, len(running)))
                running += [_remotely.remote(shared, task, folder, halt) for task in more]
                if not running:
                    return
                finished, running = ray.wait(running)
                advance(float(sum(map(_steps, finished))))
        except BaseException:  # Ctrl-C most of all
            _stop(running, halt)
            raise


@contextmanager
def _cluster(workers: int) -> Iterator[None]:
    """A connection: the caller's own, one to a running cluster, or one to a cluster of this machine alone."""
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        _knock(address)
        _connect("auto")
        nodes = sum(node["Alive"] for node in ray.nodes())
        log.info(f"Ray cluster {ray.get_runtime_context().gcs_address}: {nodes} nodes, {_processors():g} processors")
    except OSError as error:
        if address:
            raise UserError(
                "engine.cluster", f"no Ray cluster answers at RAY_ADDRESS={address}", "start it, or unset RAY_ADDRESS"
            ) from error
        log.info("no Ray cluster is running here: starting a local one")
        _connect("local", workers or cores())
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Ray itself tries for ten minutes. Where no host and port are named, it knows best."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


def _connect(address: str, processors: int | None = None) -> None:
    quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(address, num_cpus=processors, **quiet)


def _room(workers: int, running: int) -> int:
    """Tasks to hand in: two a processor, so that none waits for this process and an autoscaler sees a queue."""
    return max((workers or 2 * max(int(_processors()), 1)) - running, 0)


def _processors() -> float:
    return ray.cluster_resources().get("CPU", 0)


def _steps(finished: Any) -> int:
    try:
        return ray.get(finished)
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        fix = "repeat the command (are the nodes short of memory?): finished work is kept"
        raise UserError(
            "engine.lost", f"Ray has lost a task {1 + _RETRIES} times ({type(error).__name__})", fix
        ) from error


def _stop(running: list[Any], halt: Any) -> None:
    """Not by `ray.cancel`, which brings this process down where a task ends at that moment (Ray 2.60)."""
    halt.call.remote()
    if running:
        ray.wait(running, num_returns=len(running), timeout=_PATIENCE)


# On a node


class _Halted(Exception):
    """A task ends, since another one has failed or somebody has pressed Ctrl-C."""


class _Flag:
    def __init__(self) -> None:
        self.called = False

    def call(self) -> None:
        self.called = True

    def is_called(self) -> bool:
        return self.called


def _do(work: Any, task: Any, folder: str, halt: Any) -> int:
    """Returns the number of steps."""
    with suppress(OSError):  # not there: paths that are not relative do without
        os.chdir(folder)
    steps, asked = 0, -inf

    def tick() -> None:
        nonlocal steps, asked
        steps += 1
        if time.monotonic() > asked + _EVERY:
            with suppress(RayError):  # it was lost with its node: no reason to stop
                if ray.get(halt.is_called.remote()):
                    raise _Halted
            asked = time.monotonic()

    work(task, tick)
    return steps


# No decorators: `_do` and `_Flag` go to the nodes by name, as all tasks do.
_remotely = ray.remote(max_retries=_RETRIES)(_do)
_Halt: Any = ray.remote(num_cpus=0)(_Flag)
