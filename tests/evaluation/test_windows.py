"""Windows cover an image, each pixel as often as its neighbors say."""

import pytest
import torch
from torch import nn

from mae_kit.evaluation.windows import window_logits


@pytest.mark.parametrize("size", [(30, 41), (16, 24), (9, 50), (5, 5)])
@pytest.mark.parametrize("overlap", [0.0, 0.34, 0.9])
def test_windows_cover_an_image_evenly(size: tuple[int, int], overlap: float):
    image = torch.randn(1, 3, *size)
    torch.testing.assert_close(window_logits(nn.Identity(), image, (16, 24), overlap), image)
