"""Means over seeds, with an interval by hand."""

import pytest

from mae_kit.evaluation.seeds import over_seeds


def test_scores_have_students_interval():
    score = over_seeds([0.90, 0.92, 0.94])
    assert score.mean == pytest.approx(0.92)
    half = 4.302653 * 0.02 / 3**0.5  # the 97.5% quantile for two degrees of freedom
    assert (score.low, score.high) == (pytest.approx(0.92 - half), pytest.approx(0.92 + half))
    assert over_seeds([0.5]) == (0.5, None, None, [0.5])
