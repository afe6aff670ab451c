"""A Ray cluster of processes on this machine, which end with the tests whatever happens."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

NODE: dict[str, Any] = {"object_store_memory": 80_000_000, "include_dashboard": False, "include_log_monitor": False}
HEAD: dict[str, Any] = NODE | {"_system_config": {"health_check_period_ms": 1000}}  # a dead node is noticed in seconds


class Nodes:
    """A cluster of two nodes of one processor each: the head, to which the tests connect, and another."""

    def __init__(self, folder: str):
        from ray._private.utils import get_ray_address_file
        from ray.cluster_utils import Cluster

        # the address is written there, wherever the nodes have their folder: on a fresh machine nobody has made it
        Path(get_ray_address_file(None)).parent.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "temp_dir": folder, **HEAD})
        self.address = str(self.cluster.address)
        self.other()

    def other(self) -> Any:
        """The node beside the head; a new one where it was killed."""
        if not self.cluster.worker_nodes:
            self.cluster.add_node(num_cpus=1, temp_dir=self.folder, **NODE)
        return next(iter(self.cluster.worker_nodes))

    def kill(self, node: Any) -> None:
        """SIGKILL its raylet; the processes that this one has started are left to find out by themselves."""
        psutil.Process(node.all_processes["raylet"][0].process.pid).kill()

    def bury(self, node: Any) -> None:
        """Take a killed node off the list."""
        self.cluster.remove_node(node, allow_graceful=False)


def _end(folder: str) -> None:
    """Kill whatever names the folder of the cluster, as all its processes do but idle workers, which follow them."""
    theirs = [process for process in psutil.process_iter() if process.pid != os.getpid() and _names(process, folder)]
    for process in theirs:
        with suppress(psutil.Error):  # it has ended by itself
            process.kill()
    psutil.wait_procs(theirs, timeout=10)
    shutil.rmtree(folder, ignore_errors=True)


def _names(process: psutil.Process, folder: str) -> bool:
    try:
        return any(folder in word for word in process.cmdline())
    except psutil.Error:
        return False


def _start() -> Nodes:
    """Parts of Ray give each other half a minute to start, which a busy machine exceeds at times."""
    for _ in range(3):
        with suppress(Exception):
            return _attempt()
    return _attempt()


def _attempt() -> Nodes:
    folder = tempfile.mkdtemp(prefix="ray-")  # short: the names of its sockets count against a limit
    try:
        return Nodes(folder)
    except BaseException:
        _end(folder)
        raise


@pytest.fixture(scope="session")
def nodes() -> Iterator[Nodes]:
    pytest.importorskip("ray", reason="mae_kit[ray] is not installed")
    with pytest.MonkeyPatch.context() as patch:
        tests = str(Path(__file__).parents[1])
        patch.setenv("PYTHONPATH", os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = _start()
        try:
            yield nodes
            nodes.cluster.shutdown()
        finally:
            _end(nodes.folder)


@pytest.fixture
def cluster(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    """The cluster, found by those who ask for Ray."""
    nodes.other()
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    return nodes
