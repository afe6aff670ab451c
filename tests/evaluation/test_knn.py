"""Weighted nearest neighbors against scikit-learn and against golden predictions."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from support.features import clusters, overlapping

from mae_kit.evaluation import knn
from mae_kit.evaluation.knn import knn_predict, nearest


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (7, 1.0), (200, 0.2)])
def test_equal_to_scikit_learn(k: int, temperature: float):
    neighbors = pytest.importorskip("sklearn.neighbors")
    (bank, labels), (queries, _) = clusters(1, 200), clusters(2, 300)
    model = neighbors.KNeighborsClassifier(k, weights=lambda far: np.exp((1 - far) / temperature), metric="cosine")
    theirs = model.fit(bank.double().numpy(), labels.numpy()).predict(queries.double().numpy())
    assert knn_predict(bank, labels, queries, 5, k, temperature).tolist() == theirs.tolist()


def test_votes_for_sets_are_equal_to_scikit_learns():
    """The weighted share of the neighbors that have a class."""
    neighbors = pytest.importorskip("sklearn.neighbors")
    (bank, labels), (queries, _) = clusters(1, 200), clusters(2, 300)
    sets = overlapping(labels)
    model = neighbors.KNeighborsRegressor(20, weights=lambda far: np.exp((1 - far) / 0.07), metric="cosine")
    theirs = model.fit(bank.double().numpy(), sets.double().numpy()).predict(queries.double().numpy())
    np.testing.assert_allclose(knn_predict(bank, sets, queries, 5, 20, 0.07).numpy(), theirs, atol=1e-5)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    """The last block of the bank is smaller than k, and neighbors come from all of them."""
    (bank, labels), (queries, _) = clusters(1, 200), clusters(2, 90)
    whole = F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T
    ordered = whole.sort(dim=1, descending=True)
    predicted = knn_predict(bank, labels, queries, 5)
    monkeypatch.setattr(knn, "BANK", 39)
    monkeypatch.setattr(knn, "QUERIES", 17)
    cosines, places = nearest(bank.split(39), queries, 20)
    torch.testing.assert_close(cosines, ordered.values[:, :20])
    assert torch.equal(places, ordered.indices[:, :20])
    assert torch.equal(knn_predict(bank, labels, queries, 5), predicted)


def test_copies_in_several_blocks_count_as_often_as_they_are_there():
    """Which of more than k equal ones are taken is left open; that they are others each time is not."""
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(5, 1)
    cosines, places = nearest(bank.split(3), torch.tensor([[2.0, 0.0], [0.0, 3.0]]), 4)
    assert (cosines == 1).all() and (places % 2 == torch.tensor([[0], [1]])).all()
    assert all(len(row.unique()) == 4 for row in places)


def test_an_image_is_nearest_to_itself_and_then_to_its_near_copy():
    bank = torch.randn(40, 16)
    bank[33] = 3 * bank[7] + 0.01 * torch.randn(16)
    cosines, places = nearest(bank.split(9), bank[[7, 20]], k=2)
    assert places[0].tolist() == [7, 33] and places[1, 0] == 20
    assert cosines[0].tolist() == pytest.approx([1, 1], abs=1e-3) and cosines[0, 0] > cosines[0, 1]


@pytest.mark.parametrize("part", [1, 3, 7, 100])
def test_parts_of_a_bank_are_as_good_as_the_whole(part: int):
    bank, queries = torch.randn(50, 8), torch.randn(6, 8)
    wanted = F.cosine_similarity(queries[:, None], bank[None], dim=2).topk(5)
    cosines, places = nearest(bank.split(part), queries, k=5)
    torch.testing.assert_close(cosines, wanted.values)
    assert torch.equal(places, wanted.indices)


def test_a_bank_smaller_than_k_gives_all_it_has():
    assert nearest([torch.randn(3, 8)], torch.randn(2, 8), k=5)[1].sort().values.tolist() == [[0, 1, 2]] * 2


def test_golden_predictions(shared: Path):
    with safe_open(shared / "golden/frozen_features.safetensors", "pt") as file:
        golden = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        accuracy = float(file.metadata()["knn_accuracy"])
    predicted = knn_predict(golden["train_features"], golden["train_labels"], golden["test_features"], 10)
    assert torch.equal(predicted, golden["knn_k20_t0.07"])
    assert (predicted == golden["test_labels"]).double().mean().item() == pytest.approx(accuracy)


def test_scale_of_features_is_no_matter_and_few_neighbors_are_enough():
    (bank, labels), (queries, _) = clusters(1, 10), clusters(2, 50)
    predicted = knn_predict(bank, labels, queries, 5, k=20)
    factors = torch.rand(50, 1) * 100 + 0.01
    assert torch.equal(predicted, knn_predict(bank * 7, labels, queries * factors, 5, k=10))


def test_a_sharp_temperature_does_not_overflow():
    (bank, labels), (queries, _) = clusters(1, 100), clusters(2, 20)
    nearest = knn_predict(bank, labels, queries, 5, k=1)
    assert torch.equal(knn_predict(bank, labels, queries, 5, k=20, temperature=0.001), nearest)
