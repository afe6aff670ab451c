from pathlib import Path

import pytest
import torch
from support.errors import raises
from support.tiny_models import tiny_mae

from mae_kit.data.index.open import open_index
from mae_kit.data.loading.loader import Replica, TrainBatches
from mae_kit.training import pace
from mae_kit.training.config import Machine, Plan
from mae_kit.training.modules import PretrainModule


def batches(photos: Path, replica: Replica) -> TrainBatches:
    index = open_index(photos / "train-*.tar")
    return TrainBatches(index, index.labeled(), 16, (32, 32), replica=replica)


def test_it_is_measured_on_a_copy(photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pace, "SECONDS", 0.0)
    module = PretrainModule(tiny_mae(), lr=1e-3, mean=[0.5] * 3, std=[0.25] * 3)
    before = torch.cat([parameter.flatten().clone() for parameter in module.parameters()])
    shown = batches(photos, Replica(micro_batches=2))
    found = pace.measure_pace(module, shown, Plan(96, 16, 0.1, 0), Machine(num_workers=0, precision="fp32"))
    assert found.images_per_second > 0 and found.megabytes > 0
    assert torch.equal(before, torch.cat([parameter.flatten() for parameter in module.parameters()]))


def test_that_of_several_processes_is_not(photos: Path):
    module = PretrainModule(tiny_mae(), lr=1e-3, mean=[0.5] * 3, std=[0.25] * 3)
    with raises("minutes"):
        pace.measure_pace(module, batches(photos, Replica(world_size=2)), Plan(96, 16, 1, 0), Machine())
