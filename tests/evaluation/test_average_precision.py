# Also tests evaluation/objects.py
"""Average precision of boxes: known cases, crowds, and intervals over images."""

import math

import numpy as np
import torch

from mae_kit.evaluation.average_precision import average_precision
from mae_kit.evaluation.objects import FoundObjects

TRUE = torch.tensor(
    [[0, 10, 10, 30, 30, 0, 0], [0, 50, 50, 70, 70, 1, 0], [1, 10, 10, 30, 30, 0, 0], [1, -1, -1, -1, -1, -1, -1]],
    dtype=torch.float,
)
IMAGES = torch.arange(3)


def test_what_is_found_exactly_what_is_missed_and_classes_that_are_not_there():
    found = torch.tensor([[0, 10, 10, 30, 30, 0, 0.9], [0, 50, 50, 70, 70, 0, 0.8], [1, 10, 10, 30, 30, 0, 0.7]])
    precision = average_precision(found, TRUE, IMAGES, 3)
    assert precision.objects.tolist() == [2, 1, 0]
    # recall 1/2 at precision 1, then 2/3: 51 of 101 recalls at 1, 50 at 2/3
    assert math.isclose(precision.ap50[0], (51 + 50 * 2 / 3) / 101, rel_tol=1e-5)
    assert precision.ap50[1] == precision.ap[1] == 0 and np.isnan(precision.ap50[2])


def test_boxes_that_overlap_by_six_tenths_count_at_fifty_alone():
    found = torch.tensor([[0, 10, 10, 30, 22, 0, 0.9], [1, 10, 10, 30, 22, 0, 0.9]])
    precision = average_precision(found, TRUE, IMAGES, 2)
    assert math.isclose(precision.ap50[0], 1.0, rel_tol=1e-6) and 0.1 < precision.ap[0] < 0.35


def test_crowds_are_neither_scored_nor_held_against_it():
    true = TRUE.clone()
    true[1, 5:] = torch.tensor([0.0, 1.0])
    found = torch.tensor([[0, 10, 10, 30, 30, 0, 0.9], [0, 52, 52, 68, 68, 0, 0.99], [1, 10, 10, 30, 30, 0, 0.7]])
    precision = average_precision(found, true, IMAGES, 1)
    assert precision.objects.tolist() == [2] and math.isclose(precision.ap50[0], 1.0, rel_tol=1e-6)


def test_nothing_found_and_nothing_to_find():
    none = torch.empty(0, 7)
    assert average_precision(none, TRUE, IMAGES, 2).ap50.tolist() == [0, 0]
    assert np.isnan(average_precision(none, none, IMAGES, 2).ap50).all()


def test_intervals_and_gains_are_over_images():
    random = np.random.default_rng(0)
    images = torch.arange(12)
    true = torch.tensor([[i, 10, 10, 30, 30, i % 2, 0] for i in range(12)], dtype=torch.float)
    found = torch.tensor([[i, 10, 10, 30, 30, i % 2, random.random()] for i in range(12)])
    worse = found[torch.from_numpy(random.random(12) < 0.6)]
    ours, theirs = (FoundObjects(one.float(), true, images, 2) for one in (found, worse))
    score = theirs.score()
    assert ours.score().value == 1 and score.low < score.value < score.high and score.metric == "map50"
    gain = ours.gain(theirs)
    assert math.isclose(gain.mean, 1 - score.value, abs_tol=1e-6) and gain.low <= gain.mean <= gain.high
    record = score.record(["a", "b"])
    assert [row["objects"] for row in record["of_classes"]] == [6, 6] and record["macro_f1"] is None
