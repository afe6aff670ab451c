"""The linear probe: what it should learn, and from what."""

import pytest
import torch
from support.errors import raises
from support.features import clusters, overlapping

from mae_kit.evaluation import probe
from mae_kit.evaluation.probe import FEWEST, RATES, probe_predict, train_probe


def right(predicted: torch.Tensor, labels: torch.Tensor) -> float:
    return (predicted == labels).float().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("count", [60, 2000])
def test_as_good_as_logistic_regression(count: int):
    linear_model = pytest.importorskip("sklearn.linear_model")
    (known, labels), (queries, truth) = clusters(1, count), clusters(2, 2000)
    theirs = linear_model.LogisticRegression(max_iter=1000).fit(known.numpy(), labels.numpy())
    predicted, rate = probe_predict(known, labels, queries, 5)
    assert right(predicted, truth) > theirs.score(queries.numpy(), truth.numpy()) - 0.02
    assert rate in RATES


@pytest.mark.slow
def test_on_sets_as_good_as_a_logistic_regression_for_each_class():
    linear_model, metrics = pytest.importorskip("sklearn.linear_model"), pytest.importorskip("sklearn.metrics")
    (known, labels), (queries, truth) = clusters(1, 500), clusters(2, 500)
    sets, true = overlapping(labels)[:, :4], overlapping(truth)[:, :4]
    scores, _ = probe_predict(known, sets, queries, 4)
    for number in range(4):
        model = linear_model.LogisticRegression(max_iter=1000).fit(known.numpy(), sets[:, number].numpy())
        theirs = metrics.average_precision_score(true[:, number], model.decision_function(queries.numpy()))
        assert metrics.average_precision_score(true[:, number], scores[:, number]) > theirs - 0.02


def test_layers_concatenate_are_strangers():
    known, labels = clusters(1, 100)
    both = train_probe(known, labels, torch.arange(100), 5, (2.0, 20.0), steps=12, batch=32, seed=0)
    alone = train_probe(known, labels, torch.arange(100), 5, (2.0,), steps=12, batch=32, seed=0)
    torch.testing.assert_close(both(known)[0], alone(known)[0])
    assert not torch.allclose(both(known)[1], both(known)[0], atol=0.1)


def test_shift_and_scale_of_features_are_no_matter():
    known, labels = clusters(1, 100)
    moved = 50 * known + torch.arange(16)
    first, second = (train_probe(x, labels, torch.arange(100), 5, (6.4,), 12, 32, seed=0)(x)[0] for x in (known, moved))
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)


def test_nothing_is_learned_from_the_queries_and_the_seed_decides(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probe, "STEPS", 20)
    (known, labels), (queries, _) = clusters(1, 60), clusters(2, 40)
    before = torch.get_rng_state()
    whole, rate = probe_predict(known, labels, queries, 5, epochs=3, batch_size=20)
    part, again = probe_predict(known, labels, queries[:7], 5, epochs=3, batch_size=20)
    assert torch.equal(whole[:7], part) and rate == again
    assert torch.equal(before, torch.get_rng_state())


def test_too_few_images_are_refused():
    known, labels = clusters(1, FEWEST - 1)
    with raises("data.too_few"):
        probe_predict(known, labels, known, 5)
