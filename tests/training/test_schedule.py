"""The schedule is the original's, to the last digit that matters."""

import json
from pathlib import Path

import pytest

from mae_kit.training.schedule import absolute_learning_rate, learning_rate


def test_equals_the_original_schedule(shared: Path):
    for case in json.loads((shared / "golden/mae_optim.json").read_text())["schedule"]:
        lengths = {key: float(case[key]) for key in ("warmup_epochs", "epochs")}
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


def test_scaling_rule():
    assert absolute_learning_rate(1.5e-4, 4096) == pytest.approx(2.4e-3)
    assert absolute_learning_rate(1e-4, 2048) == pytest.approx(8e-4)  # SimMIM's 2e-4 for 512
