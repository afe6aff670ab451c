"""R2 with intervals over images."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.regression import r2_score

from mae_kit.evaluation.numbers import Numbers


def test_the_score_is_that_of_torchmetrics():
    draw = np.random.default_rng(0)
    truth = draw.normal(10, [1.0, 5.0], (80, 2))
    found = truth + draw.normal(0, [0.5, 4.0], (80, 2))
    score = Numbers(found, truth).score()
    theirs = r2_score(torch.from_numpy(found), torch.from_numpy(truth), multioutput="raw_values").numpy()
    assert score.of_classes is not None
    np.testing.assert_allclose(score.of_classes["r2"], theirs)
    np.testing.assert_allclose(score.of_classes["mae"], np.abs(found - truth).mean(axis=0))
    assert score.low < score.value < score.high and score.value == pytest.approx(theirs.mean())


def test_a_gain_is_on_the_same_images():
    draw = np.random.default_rng(0)
    truth = draw.normal(10, 3, (50, 1))
    near, far = (Numbers(truth + draw.normal(0, error, (50, 1)), truth) for error in (0.5, 2))
    gain = near.gain(far)
    assert gain.mean == pytest.approx(near.score().value - far.score().value) and gain.low > 0


def test_equal_numbers_have_no_variance_to_explain():
    truth = np.full((5, 1), 7.0)
    assert Numbers(truth + 1, truth).score().value == 0
