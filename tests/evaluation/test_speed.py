"""What an encoder costs: memory that is known, and sizes that need more than others."""
# Also tests commands/bench.py.

from mmap import mmap
from pathlib import Path
from typing import Any

import pytest
import torch
from support.errors import raises

from mae_kit.evaluation import speed
from mae_kit.evaluation.speed import encoder_cost, measure, memory_growth

TINY = ("vit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2})


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system does not tell the peak")
def test_memory_that_was_taken_and_given_back_is_counted():
    take_and_give_back(300)  # before is no matter
    growth = memory_growth("cpu")
    assert growth() == pytest.approx(0, abs=5)
    take_and_give_back(100)
    assert growth() == pytest.approx(100, abs=10)


def take_and_give_back(megabytes: int) -> None:
    """From the system itself: an allocator may hand out what earlier tests have freed, and the process not grow."""
    with mmap(-1, megabytes * 10**6) as pages:
        torch.frombuffer(pages, dtype=torch.uint8).fill_(1)


@pytest.mark.long
def test_larger_images_cost_more():
    small, large = (encoder_cost(*TINY, (size, size), 32, "fp32") for size in (32, 256))
    assert small and large and small.images_per_second > large.images_per_second > 0
    if small.batch_mb is not None and large.batch_mb is not None:
        assert large.batch_mb > 32 * 3 * 256**2 * 4 / 1e6 and large.batch_mb > 2 * small.batch_mb


@pytest.mark.parametrize(
    ("name", "model_args"),
    [
        (
            "convnextv2_atto",
            {"output_stride": 8, "depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32], "img_size": [64, 64]},
        ),
        ("swin_tiny_patch4_window7_224", {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}),
        ("igpt_s", {"img_size": 8, "colors": 8, "embed_dim": 12, "depth": 1, "num_heads": 1}),
    ],
)
def test_encoders_of_every_kind_are_measured(name: str, model_args: dict[str, Any]):
    size = (16, 16) if name == "igpt_s" else (64, 64)
    assert measure(name, model_args, size, 2, "fp32").images_per_second > 0


def test_a_size_that_does_not_fit_is_named_before_a_process_is_started(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(speed, "ProcessPoolExecutor")
    with raises("encoder.img_size"):
        encoder_cost(*TINY, (36, 36), 1, "fp32")
