"""Pretrainings on GPUs that are not here, by arithmetic."""
# Also tests comparison/gpus.py.

from typing import Any

import pytest
import torch
from support.errors import raises
from support.tiny_models import tiny_mae

from mae_kit.classes.configured import build
from mae_kit.comparison.gpus import GPUS, USABLE
from mae_kit.comparison.on_gpus import Box, on_gpus, parts_that_fit
from mae_kit.files.recipe_file import find_recipe, read_recipe
from mae_kit.training.config import Machine, Plan
from mae_kit.training.footprint import Footprint

PLAN = Plan(samples=1000, batch_size=64, epochs=10, seed=0)


def mae() -> Any:
    model = tiny_mae().train()
    model.set_statistics([0.5] * 3, [0.5] * 3)
    return model


def test_time_and_cost_follow_from_the_operations():
    found = on_gpus(mae(), PLAN, Machine(), Box(2, "a100", price=1.5))
    best, worst = found["hours"]
    assert best == pytest.approx(found["flops"] / (2 * 0.3 * GPUS["a100"].teraflops * 1e12) / 3600)
    assert worst == pytest.approx(3 * best) and found["cost"] == pytest.approx([3 * best, 3 * worst])
    assert found["fits"] and found["change"] == [] and sum(found["memory"].values()) == found["memory_in_all"]
    measured = on_gpus(mae(), PLAN, Machine(), Box(2, "a100", images_per_second=100.0))
    assert measured["hours"] == pytest.approx([PLAN.steps * 64 / 200 / 3600] * 2) and measured["cost"] is None


def test_masks_of_an_image_cost_like_images():
    once, twice = (on_gpus(mae(), PLAN, Machine(), Box(2, "a100"), masks) for masks in (1, 2))
    assert twice["flops"] == 2 * once["flops"] and twice["hours"] == pytest.approx([2 * x for x in once["hours"]])
    activations = [found["memory"]["activations"] for found in (once, twice)]
    assert activations[0] < activations[1] <= 2 * activations[0]


def test_a_batch_has_to_divide_among_them():
    for box, machine in ((Box(3, "t4"), Machine()), (Box(2, "t4"), Machine(accumulate_grad_batches=3))):
        with raises("data.batch_size"):
            on_gpus(mae(), PLAN, machine, box)


def test_as_few_micro_batches_as_fit():
    taken = Footprint(weights=100, gradients=100, moments=200, fixed=0.0, of_image=10.0, flops=1.0)
    assert [parts_that_fit(taken, 64, room) for room in (1040, 720, 719, 410, 409)] == [1, 2, 4, 64, None]


@pytest.mark.parametrize(
    ("gigabytes", "gpus", "change"),
    [
        (20.0, 1, "--accumulate 2"),
        (4.2, 1, "--machine.activation_checkpointing"),
        (2.5, 4, "--machine.strategy fsdp"),
        (0.5, 1, "a GPU with more memory"),
    ],
)
def test_what_does_not_fit_says_what_would(monkeypatch: pytest.MonkeyPatch, gigabytes: float, gpus: int, change: str):
    taken = Footprint(weights=1e9, gradients=1e9, moments=2e9, fixed=0.0, of_image=0.4e9, flops=1.0)
    monkeypatch.setattr("mae_kit.comparison.on_gpus.footprint", lambda *_: taken)
    monkeypatch.setitem(GPUS, "t4", GPUS["t4"]._replace(gigabytes=gigabytes / USABLE))
    found = on_gpus(mae(), PLAN, Machine(), Box(gpus, "t4"))
    assert not found["fits"] and found["change"][0].startswith(change), found


def test_processes_that_share_weights_hold_a_part_of_them():
    whole, split = (on_gpus(mae(), PLAN, Machine(strategy=kind), Box(4, "t4")) for kind in ("ddp", "fsdp"))
    assert split["memory"]["moments"] == pytest.approx(whole["memory"]["moments"] / 4)
    assert split["memory"]["activations"] == whole["memory"]["activations"]


@pytest.mark.long
def test_the_huge_recipe_fits_eight_gpus_of_80_gb():
    recipe = read_recipe(find_recipe("mae_vit_h14", "pretrain"))
    with torch.device("meta"):
        objective = build(recipe["objective"]).train()
    plan = Plan(1281167, recipe["data"]["batch_size"], recipe["optimization"]["epochs"], 0)
    found = on_gpus(objective, plan, Machine(**recipe["machine"]), Box(8, "a100"))
    assert found["fits"] and found["accumulate_grad_batches"] > 1
    assert found["memory"]["weights"] == pytest.approx(4 * 658e6, rel=0.02)
