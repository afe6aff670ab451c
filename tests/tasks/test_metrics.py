"""Scores of a classifier on held-out images, against scikit-learn."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from mae_kit.tasks.metrics import ClassificationScores, MultiLabelScores, Scores

metrics = pytest.importorskip("sklearn.metrics")
CLASSES = ["a", "b", "c", "d"]


def scored(scores: Scores, logits: torch.Tensor, labels: torch.Tensor) -> dict:
    """As after a pass over batches."""
    for part in range(0, len(logits), 16):
        scores.update(logits[part : part + 16], labels[part : part + 16])
    scores._found = scores.found(scores.metrics.compute())
    result = scores.result(CLASSES)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    return result


def test_one_label_each():
    torch.manual_seed(0)
    labels = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), 100, replacement=True)
    logits = torch.randn(100, 4) + 2 * torch.nn.functional.one_hot(labels, 4)
    found = scored(ClassificationScores([], 4, 1), logits, labels)
    predicted = logits.argmax(dim=1)
    assert found["top1"] == pytest.approx(float((predicted == labels).float().mean())) and "top5" not in found
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(labels, predicted, average="macro", zero_division=0))
    assert sum(map(sum, found["confusion"])) == found["samples"] == 100
    assert [row["images"] for row in found["of_classes"]] == torch.bincount(labels, minlength=4).tolist()
    assert list(found["per_class"]) == ["a", "b", "c"] and found["of_classes"][3]["recall"] is None


def test_any_number_of_classes():
    torch.manual_seed(0)
    labels = torch.rand(100, 4) < torch.tensor([0.5, 0.2, 0.05, 0.0])
    logits = torch.randn(100, 4) + 2 * labels - 2
    found = scored(MultiLabelScores([], 4, 1), logits, labels)
    precisions = [metrics.average_precision_score(labels[:, k], logits[:, k]) for k in range(3)]
    np.testing.assert_allclose([row["average_precision"] for row in found["of_classes"][:3]], precisions, rtol=1e-5)
    assert found["of_classes"][3]["average_precision"] is None and found["of_classes"][3]["images"] == 0
    assert found["map"] == pytest.approx(np.mean(precisions)), "what nobody has does not count"
    named = (logits > 0).numpy()
    counted = [k for k in range(4) if labels[:, k].any() or named[:, k].any()]
    each = metrics.f1_score(labels, named, average=None, zero_division=0)
    assert found["macro_f1"] == pytest.approx(each[counted].mean()) and found["samples"] == 100


def test_a_single_class_and_none_at_all():
    found = MultiLabelScores([], 1, 1).found({"probability": torch.tensor([[0.9], [0.1]]), "true": torch.ones(2, 1)})
    assert found["map"] == 1 and found["macro_f1"] == pytest.approx(2 / 3)
    nobody = {"probability": torch.rand(3, 2), "true": torch.zeros(3, 2)}
    assert MultiLabelScores([], 2, 1).found(nobody)["map"] == 0


def test_a_rank_without_samples_has_rows_to_give():
    scores = MultiLabelScores([], 4, 1)
    scores.update(torch.zeros(2, 4), torch.ones(2, 4, dtype=torch.bool))
    scores.metrics.reset()
    given: Any = scores.metrics
    assert [given[name].rows[0].shape for name in ("probability", "true")] == [(0, 4), (0, 4)]
