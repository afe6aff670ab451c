"""How a codebook is used: codes that are in use, and codes that tell something."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mae_kit.encoders.tokenizers.usage import Usage


def sure(codes: list[int], codebook: int, certainty: float = 100.0) -> Tensor:
    """Logits of an image with one row of patches."""
    return certainty * F.one_hot(torch.tensor(codes), codebook).float().T[None, :, None]


def usage_of(*logits: Tensor) -> Usage:
    usage = Usage(logits[0].shape[1])
    for batch in logits:
        usage.add(batch)
    return usage


@pytest.mark.parametrize(
    ("codes", "perplexity", "used"), [([1, 1, 1, 1], 1, 1), ([0, 1, 2, 3], 4, 4), ([0, 0, 0, 5], 4 / 3**0.75, 2)]
)
def test_codes_in_use(codes: list[int], perplexity: float, used: int):
    usage = usage_of(sure(codes, 8))
    assert usage.perplexity == pytest.approx(perplexity) and usage.used == used
    assert usage.bits == pytest.approx(math.log2(perplexity)), "no code is drawn by chance"


def test_codes_that_mean_the_same_tell_nothing():
    """Each is the best one somewhere, by a hair: a patch would do with any of them."""
    usage = usage_of(sure(list(range(64)), 64, 0.01))
    assert usage.perplexity == pytest.approx(64) and usage.bits == pytest.approx(0, abs=1e-4) and usage.collapsed
    two = sure([0, 0, 1, 1], 4) + sure([2, 2, 3, 3], 4)  # 0 or 2, and 1 or 3
    assert usage_of(two).bits == pytest.approx(1)


def test_images_may_come_in_parts():
    logits = torch.randn(6, 5, 2, 3, generator=torch.Generator().manual_seed(0))
    whole, parts = usage_of(logits), usage_of(logits[:4], logits[4:])
    assert (parts.perplexity, parts.used) == (whole.perplexity, whole.used)
    assert parts.bits == pytest.approx(whole.bits)
    shares = logits.softmax(dim=1).movedim(1, 3).reshape(-1, 5)
    told = (shares * (shares / shares.mean(dim=0)).log2()).sum(dim=1).mean()
    assert whole.bits == pytest.approx(float(told), rel=1e-5)


def test_a_codebook_has_collapsed_when_a_fiftieth_of_it_is_in_use():
    assert usage_of(sure([0] * 256, 512)).collapsed
    assert all(usage_of(sure([1] * 64, codes)).collapsed for codes in (2, 8, 50))
    assert not usage_of(sure([0, 1] * 32, 2)).collapsed
    assert not usage_of(sure([i % 16 for i in range(256)], 512)).collapsed
    assert not usage_of(sure(list(range(64)), 8192)).collapsed, "as many as there are patches"
