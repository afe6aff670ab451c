"""The schedule is the original's, to the last digit that matters."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch.nn import Parameter
from torch.optim import AdamW

from mae_kit.training.schedule import absolute_learning_rate, learning_rate


def test_equals_the_original_schedule(shared: Path):
    for case in json.loads((shared / "golden/mae_optim.json").read_text())["schedule"]:
        lengths: Any = {key: float(case[key]) for key in ("warmup_epochs", "epochs")}
        for epoch, expected in case["epoch_lr"]:
            assert learning_rate(float(epoch), peak=case["lr"], floor=case["min_lr"], **lengths) == pytest.approx(
                expected, rel=1e-9
            )


def test_ends_at_the_floor_and_needs_no_warmup():
    assert learning_rate(0.0, peak=1.0, floor=0.1, warmup_epochs=0.0, epochs=10.0) == 1.0
    assert learning_rate(10.0, peak=1.0, floor=0.1, warmup_epochs=0.0, epochs=10.0) == pytest.approx(0.1)
    assert learning_rate(12.0, peak=1.0, floor=0.1, warmup_epochs=0.0, epochs=10.0) == pytest.approx(0.1)


def test_a_run_shorter_than_its_warmup_only_warms_up():
    assert learning_rate(1.0, peak=1.0, floor=0.0, warmup_epochs=4.0, epochs=2.0) == 0.25


@pytest.mark.parametrize(("epochs", "warmup_epochs"), [(100, 20), (100, 10), (10, 0)])
def test_a_cosine_from_the_start_is_timms(epochs: int, warmup_epochs: int):
    theirs = CosineLRScheduler(AdamW([Parameter(torch.zeros(1))], lr=5e-3), epochs, lr_min=1e-6, warmup_t=warmup_epochs)
    length: Any = {"epochs": float(epochs), "warmup_epochs": float(warmup_epochs)}
    for epoch in range(epochs + 1):
        ours = learning_rate(float(epoch), peak=5e-3, floor=1e-6, decay="cosine_from_start", **length)
        assert ours == pytest.approx(theirs._get_lr(epoch)[0])


def test_a_trapezoid_is_constant_and_falls_in_the_last_fifth_of_the_run():
    course: Any = {"peak": 1.0, "floor": 0.5, "warmup_epochs": 10.0, "epochs": 100.0, "decay": "trapezoid"}
    rates = [learning_rate(epoch, **course) for epoch in (5.0, 10.0, 79.9, 90.0, 100.0)]
    assert rates == pytest.approx([0.5, 1, 1, 0.75, 0.5])


def test_steps():
    course: Any = {"peak": 1.0, "floor": 0.0, "warmup_epochs": 10.0, "epochs": 800.0, "decay": "steps"}
    rates = [learning_rate(epoch, steps=(700.0, 750.0), **course) for epoch in (5.0, 10.0, 699.9, 700.0, 760.0)]
    assert rates == pytest.approx([0.5, 1, 1, 0.1, 0.01])
    assert learning_rate(700.0, **course) == 1.0


def test_scaling_rule():
    assert absolute_learning_rate(1.5e-4, 4096) == pytest.approx(2.4e-3)
    assert absolute_learning_rate(1e-4, 2048) == pytest.approx(8e-4)  # SimMIM's 2e-4 for 512
