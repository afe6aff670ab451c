"""Ridge regression against golden scores and against scikit-learn."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from support.features import clusters, overlapping

from mae_kit.evaluation.fewshot import BIAS, fit_ridge


@pytest.mark.parametrize("l2", [1024, 1])
def test_golden_scores(shared: Path, l2: int):
    with safe_open(shared / "golden/frozen_features.safetensors", "pt") as file:
        golden = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        accuracy = float(file.metadata()[f"ridge_accuracy_l2_{l2}"])
    scores = fit_ridge(golden["train_features"], golden["train_labels"], 10, l2).scores(golden["test_features"])
    torch.testing.assert_close(scores, golden[f"ridge_scores_l2_{l2}"], rtol=1e-8, atol=1e-8)
    assert (scores.argmax(dim=1) == golden["test_labels"]).double().mean().item() == pytest.approx(accuracy)


@pytest.mark.parametrize("count", [10, 16, 17, 200])
def test_equal_to_scikit_learn_with_fewer_and_with_more_images_than_features(count: int):
    """16 features and the bias, where one of the two systems becomes the smaller."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    (known, labels), (queries, _) = clusters(1, count), clusters(2, 30)
    mean, deviation = known.double().mean(dim=0), known.double().std(dim=0, correction=0) + 1e-5
    x, asked = ((part.double() - mean) / deviation for part in (known, queries))
    x, asked = (torch.cat([part, torch.full((len(part), 1), BIAS)], dim=1) for part in (x, asked))
    targets = torch.where(torch.arange(5) == labels[:, None], 1.0, -1.0)
    model = linear_model.Ridge(7.0, fit_intercept=False).fit(x.numpy(), targets.numpy())
    scores = fit_ridge(known, labels, 5, l2=7.0).scores(queries)
    torch.testing.assert_close(scores, torch.from_numpy(model.predict(asked.numpy())), rtol=1e-6, atol=1e-8)


def test_a_feature_that_never_changes_says_nothing():
    (known, labels), (queries, _) = clusters(1, 50), clusters(2, 20)
    dull = [torch.cat([part, torch.full((len(part), 1), 3.0)], dim=1) for part in (known, queries)]
    scores = [fit_ridge(train, labels, 5).scores(asked) for train, asked in (dull, (known, queries))]
    torch.testing.assert_close(*scores)


def test_of_a_set_each_class_is_a_question_of_its_own():
    (known, labels), (queries, _) = clusters(1, 60), clusters(2, 30)
    sets = overlapping(labels)
    together = fit_ridge(known, sets, 5).scores(queries)
    for number in range(5):
        alone = fit_ridge(known, sets[:, number].long(), 2).scores(queries)[:, 1]
        torch.testing.assert_close(together[:, number], alone)
