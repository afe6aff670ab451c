"""Rank and collapse of features whose rank is known."""

import pytest
import torch

from mae_kit.evaluation.rank import IMAGES, rank_me
from mae_kit.evaluation.rank import feature_statistics as statistics


@pytest.mark.parametrize("directions", [1, 3, 8])
def test_equal_directions_are_counted(directions: int):
    basis = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0][:directions]
    features = basis.repeat(20, 1) * 7
    assert rank_me(features) == pytest.approx(directions, rel=1e-3)


def test_unequal_directions_count_less():
    assert rank_me(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(2 ** (0.811278), rel=1e-4)  # entropy in bits


def test_spread_is_what_the_mean_does_not_explain():
    noise = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    assert statistics(noise).spread == pytest.approx(1, abs=0.01) and not statistics(noise).collapsed
    assert statistics(noise + 3).spread == pytest.approx(0.1, abs=0.01) and not statistics(noise + 3).collapsed


def test_collapse_is_seen():
    noise = torch.randn(500, 16, generator=torch.Generator().manual_seed(0))
    same, nearly, line = torch.ones(500, 16), 1 + 1e-3 * noise, 5 + noise[:, :1].expand(-1, 16)
    assert all(statistics(features).collapsed for features in (same, nearly, line, torch.zeros(500, 16)))


@pytest.mark.parametrize(("directions", "narrow"), [(3, True), (9, False)])
def test_few_directions_are_seen(directions: int, narrow: bool):
    noise = torch.randn(2000, directions, generator=torch.Generator().manual_seed(0))
    found = statistics(torch.nn.functional.pad(noise, (0, 192 - directions)))
    assert found.narrow is narrow and not found.collapsed


def test_many_images_are_thinned_out_evenly():
    features = torch.zeros(2 * IMAGES, 2)
    features[::2, 0], features[1::2, 1] = 1, 1  # every second one is all the same
    assert statistics(features).rank == pytest.approx(1, rel=1e-3) and statistics(
        features[:IMAGES]
    ).rank == pytest.approx(2)
