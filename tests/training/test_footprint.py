"""Memory and operations of a step, counted without either."""

import pytest
import torch
from support.tiny_models import tiny_mae
from torch import nn

from mae_kit.comparison.cost import flops_per_image
from mae_kit.encoders.recompute import recompute_blocks
from mae_kit.training.footprint import LiveBytes, _step, footprint


@pytest.mark.slow
def test_parts_and_operations_of_a_vit():
    mae = tiny_mae().train()
    taken = footprint(mae, half=False)
    trained = sum(p.numel() for p in mae.parameters() if p.requires_grad)
    assert (taken.gradients, taken.moments) == (4 * trained, 8 * trained)
    assert taken.weights >= taken.gradients
    assert taken.flops == pytest.approx(flops_per_image(mae), rel=0.05)
    assert taken.total(9) - taken.total(8) == pytest.approx(taken.of_image)
    assert _step(mae, 16, half=True)[0] < _step(mae, 16, half=False)[0]


@pytest.mark.slow
def test_checkpointing_takes_less_memory_and_more_operations():
    mae = tiny_mae(depth=6).train()
    kept, operations = _step(mae, 8, half=False)
    recompute_blocks(mae)
    again, more = _step(mae, 8, half=False)
    assert again < 0.6 * kept and 1.2 * operations < more < 1.4 * operations


def test_what_lives_is_counted_once():
    weights = torch.ones(100)
    with LiveBytes([weights]) as live:
        first = weights + 1
        view = first[:50]
        assert live.now == 400
        del first
        assert live.now == 400
        del view
        assert live.now == 0 and live.peak == 400
        for _ in range(5):
            first = weights * 2  # noqa: F841
        assert live.peak == 800  # the new one is made before the old one goes


def test_it_is_what_real_tensors_take():
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
    images = torch.randn(32, 64)
    with LiveBytes([images, *model.parameters()]) as live:
        model(images).sum().backward()
        at_end = live.now
    gradients = sum(4 * p.numel() for p in model.parameters())
    assert at_end == gradients and live.peak >= gradients + 32 * 4 * 256
