"""Neighbors by features: planted pairs come out, exactly and in cells; pairs of the evaluation set do not."""

import numpy as np
import pytest
import torch

from mae_kit.duplicates import similarity


@pytest.mark.parametrize("exact", [100_000, 10])
def test_planted_pairs_are_found_behind_a_common_direction(exact: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(similarity, "EXACT", exact)
    dice = np.random.default_rng(0)
    features = dice.normal(size=(5000, 24)).astype(np.float32)
    near, own = np.arange(0, 5000, 50), 4000
    features[near + 7] = features[near] + 0.05 * dice.normal(size=(100, 24))
    rows = np.arange(5000) * 2  # every other image decodes
    pairs = similarity.similar(torch.from_numpy(features + 30), rows, own * 2, 0.98)
    planted = [(2 * first, 2 * first + 14) for first in near.tolist() if first < own]
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == planted
    assert (pairs.score > 0.98).all() and (pairs.score < 1).all()
