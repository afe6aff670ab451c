from typing import Any, NamedTuple

import psutil
import pytest
import torch

from mae_kit.cli import main as cli
from mae_kit.training.config import Machine
from mae_kit.training.threads import with_free_threads


class Times(NamedTuple):
    user: float
    nice: float
    idle: float


@pytest.fixture
def neighbors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cores: two taken by others, one by a low-priority program, one free."""
    busy, nice, idle = Times(90, 0, 10), Times(5, 90, 5), Times(0, 0, 100)
    monkeypatch.setattr(psutil, "getloadavg", lambda: (1e6, 0.0, 0.0))
    monkeypatch.setattr(psutil, "cpu_times_percent", lambda seconds, percpu: [busy, nice, idle, busy])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)


@pytest.mark.usefixtures("neighbors")
@pytest.mark.parametrize(("given", "load", "threads"), [(0, 1e6, 2), (3, 1e6, 3), (0, 0.0, 0)])
def test_busy_neighbors_leave_fewer(given: int, load: float, threads: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(psutil, "getloadavg", lambda: (load, load, load))
    assert with_free_threads(Machine(threads=given)).threads == threads


@pytest.mark.usefixtures("neighbors")
@pytest.mark.parametrize(
    ("given", "threads"), [({}, 2), ({"machine": Machine(threads=1)}, 1), ({"resume": True}, None)]
)
def test_a_new_training_of_the_command_line_chooses(given: dict[str, Any], threads: int | None):
    def train(machine: Machine = Machine(), resume: bool = False) -> None: ...

    chosen = cli._with_threads(train, given).get("machine")
    assert (chosen and chosen.threads) == threads
    assert cli._with_threads(lambda images: None, {"images": "a"}) == {"images": "a"}
