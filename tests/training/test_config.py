"""Settings that cannot be are refused where they are made, by the key of the recipe; a few also pass the door."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from mae_kit.encoders.timm_models import pair
from mae_kit.errors import UserError
from mae_kit.tasks.config import Augmentation, FinetuneData
from mae_kit.training.config import Intervals, Machine, Optimization, Plan


@pytest.mark.parametrize(
    ("make", "arguments", "complaint"),
    [
        (Optimization, {"epochs": 0}, "optimization.epochs is 0: give a number above 0"),
        (Optimization, {"epochs": math.inf}, "optimization.epochs is inf: give a number above 0"),
        (Optimization, {"epochs": math.nan}, "optimization.epochs is nan"),
        (Optimization, {"epochs": 3, "learning_rate": math.nan}, "optimization.learning_rate is nan"),
        (Optimization, {"epochs": 3, "weight_decay": math.inf}, "optimization.weight_decay is inf: give 0 or more"),
        (Optimization, {"epochs": 3, "weight_decay": -1}, "optimization.weight_decay is -1: give 0 or more"),
        (Optimization, {"epochs": 3, "clip": -1}, "optimization.clip is -1"),
        (Optimization, {"epochs": 3, "layer_decay": 2}, "optimization.layer_decay is 2: give a number above 0"),
        (Optimization, {"epochs": 3, "warmup_epochs": 9}, "optimization.warmup_epochs 9 are more than epochs 3"),
        (Optimization, {"epochs": 3, "steps": (2.0,)}, "decay cosine has no steps: give --optimization.steps"),
        (Optimization, {"epochs": 3, "decay": "steps", "min_learning_rate": 1e-6}, "give --optimization.min_learning_"),
        (
            Optimization,
            {"epochs": 80, "decay": "steps", "steps": (90.0,)},
            r"epochs 80: give --optimization.steps \[70\]",
        ),
        (Optimization, {"epochs": 80, "decay": "steps", "steps": (7.0, 5.0)}, r"steps \[7, 5\] do not ascend"),
        (Machine, {"accumulate_grad_batches": 0}, "machine.accumulate_grad_batches is 0"),
        (Machine, {"threads": -1}, "machine.threads is -1: give 0 or more"),
        (Machine, {"num_workers": -2}, "machine.num_workers is -2: give -1 or more"),
        (Intervals, {"log_every_n_steps": 0}, "intervals.log_every_n_steps is 0"),
        (Plan, {"samples": 8, "batch_size": 0, "epochs": 1, "seed": 0}, "data.batch_size is 0"),
        (Plan, {"samples": 8, "batch_size": 2, "epochs": 1, "seed": 0, "mix_shards": -1}, "data.mix_shards is -1"),
        (
            FinetuneData,
            {"path": "a", "batch_size": 2, "image_size": 32, "labels_per_class": 0},
            "data.labels_per_class is 0",
        ),
        (Augmentation, {"smoothing": 3}, "augmentation.smoothing is 3: give a number from 0 to 1"),
        (Augmentation, {"mixup": -1}, "augmentation.mixup is -1: give 0 or more"),
    ],
)
def test_a_range_is_kept(make: Callable[..., Any], arguments: dict[str, Any], complaint: str):
    with pytest.raises(UserError, match=complaint):
        make(**arguments)


@pytest.mark.parametrize(
    ("rates", "complaint"),
    [
        ({}, "and has none: give --optimization.base_learning_rate 1.5e-4"),
        ({"base_learning_rate": 1.0, "learning_rate": 1.0}, "and has both: add --optimization.base_learning_rate null"),
    ],
)
def test_neither_rate_is_another_mistake_than_both(rates: dict[str, Any], complaint: str):
    what = "optimization needs one of base_learning_rate and learning_rate, "
    with pytest.raises(UserError, match=re.escape(what + complaint)):
        Optimization(1, **rates).peak(256)


@pytest.mark.parametrize("size", [[32], [32, 32, 3], [0, 32]])
def test_a_size_is_one_number_or_two(size: list[int]):
    with pytest.raises(UserError, match=r"a size of .* pixels: give one number, or height and width"):
        pair(size)
