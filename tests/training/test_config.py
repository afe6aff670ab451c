"""Settings that cannot be are refused where they are made, by the key of the recipe; a few also pass the door."""
# Also tests tasks/config.py.

import math
from collections.abc import Callable
from typing import Any

import pytest
from support.errors import raises

from mae_kit.encoders.timm_models import pair
from mae_kit.tasks.config import Augmentation, FinetuneData
from mae_kit.training.config import Intervals, Machine, Optimization, Plan


@pytest.mark.parametrize(
    ("make", "arguments", "key"),
    [
        (Optimization, {"epochs": 0}, "optimization.epochs"),
        (Optimization, {"epochs": math.inf}, "optimization.epochs"),
        (Optimization, {"epochs": math.nan}, "optimization.epochs"),
        (Optimization, {"epochs": 3, "learning_rate": math.nan}, "optimization.learning_rate"),
        (Optimization, {"epochs": 3, "weight_decay": math.inf}, "optimization.weight_decay"),
        (Optimization, {"epochs": 3, "weight_decay": -1}, "optimization.weight_decay"),
        (Optimization, {"epochs": 3, "clip": -1}, "optimization.clip"),
        (Optimization, {"epochs": 3, "layer_decay": 2}, "optimization.layer_decay"),
        (Optimization, {"epochs": 3, "warmup_epochs": 9}, "optimization.warmup_epochs"),
        (Optimization, {"epochs": 3, "steps": (2.0,)}, "optimization.decay"),
        (Optimization, {"epochs": 3, "decay": "steps", "min_learning_rate": 1e-6}, "optimization.steps"),
        (Optimization, {"epochs": 80, "decay": "steps", "steps": (90.0,)}, "optimization.steps.end"),
        (Optimization, {"epochs": 80, "decay": "steps", "steps": (7.0, 5.0)}, "optimization.steps.end"),
        (Machine, {"accumulate_grad_batches": 0}, "machine.accumulate_grad_batches"),
        (Machine, {"threads": -1}, "machine.threads"),
        (Machine, {"threads": 99_999_999_999}, "machine.threads"),
        (Machine, {"num_workers": 99_999}, "machine.num_workers"),
        (Machine, {"num_workers": -2}, "machine.num_workers"),
        (Intervals, {"log_every_n_steps": 0}, "intervals.log_every_n_steps"),
        (Plan, {"samples": 8, "batch_size": 0, "epochs": 1, "seed": 0}, "data.batch_size"),
        (Plan, {"samples": 8, "batch_size": 2, "epochs": 1, "seed": 0, "mix_shards": -1}, "data.mix_shards"),
        (
            FinetuneData,
            {"path": "a", "batch_size": 2, "image_size": 32, "labels_per_class": 0},
            "data.labels_per_class",
        ),
        (
            FinetuneData,
            {"path": "a", "batch_size": 2, "image_size": 32, "labels_fraction": 1.5},
            "data.labels_fraction",
        ),
        (Augmentation, {"smoothing": 3}, "augmentation.smoothing"),
        (Augmentation, {"mixup": -1}, "augmentation.mixup"),
    ],
)
def test_a_range_is_kept(make: Callable[..., Any], arguments: dict[str, Any], key: str):
    with raises(key):
        make(**arguments)


@pytest.mark.parametrize(
    ("rates", "key"),
    [
        ({}, "optimization.learning_rate.none"),
        ({"base_learning_rate": 1.0, "learning_rate": 1.0}, "optimization.learning_rate.both"),
    ],
)
def test_neither_rate_is_another_mistake_than_both(rates: dict[str, Any], key: str):
    with raises(key):
        Optimization(1, **rates).peak(256)


@pytest.mark.parametrize("size", [[32], [32, 32, 3], [0, 32]])
def test_a_size_is_one_number_or_two(size: list[int]):
    with raises("encoder.img_size.form"):
        pair(size)
