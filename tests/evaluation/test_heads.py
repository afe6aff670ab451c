"""Heads that are solved, not trained: their penalty is chosen by the images that are left out."""
# Also tests evaluation/predictions.py.

import torch

from mae_kit.evaluation.fewshot import fit_ridge
from mae_kit.evaluation.heads import PENALTIES, _leave_one_out, probe_head, ridge_head
from mae_kit.evaluation.predictions import multi_hot
from mae_kit.evaluation.probe import fit_probe


def clusters(count: int, seed: int, noise: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features [m 24] of three classes, in balance, around centers that only the seed 0 draws."""
    centers = torch.randn(3, 24, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % 3
    return centers[labels] + noise * torch.randn(count, 24, generator=torch.Generator().manual_seed(seed)), labels


def test_one_regression_leaves_each_image_out():
    features, labels = clusters(12, 1)
    targets = 2 * multi_hot(labels, 3).double() - 1
    found = _leave_one_out(features, labels, targets, 10.0)
    whole = fit_ridge(features, labels, 3, 10.0)
    x = whole.standardized(features)
    for row in range(12):
        rest = torch.arange(12) != row
        gram = x[rest].T @ x[rest] + 10 * torch.eye(x.shape[1], dtype=torch.float64)
        weights = torch.linalg.solve(gram, x[rest].T @ targets[rest])
        torch.testing.assert_close(found[row], x[row] @ weights)


def test_a_ridge_head_is_a_ridge_regression():
    features, labels = clusters(30, 1)
    queries, truth = clusters(300, 2)
    head = ridge_head(features, labels, 3)
    logits = head.logits(queries)
    assert any(
        torch.equal(fit_ridge(features, labels, 3, l2).scores(queries).argmax(1), logits.argmax(1)) for l2 in PENALTIES
    )
    assert (logits.argmax(1) == truth).double().mean() > 0.9


def test_noise_is_answered_by_a_larger_penalty_and_smaller_logits():
    clear, noisy = (ridge_head(*clusters(30, 1, noise), 3).logits(clusters(300, 2)[0]) for noise in (0.3, 30.0))
    assert clear.std() > 3 * noisy.std()


def test_sets_of_classes_have_a_head():
    features, labels = clusters(30, 1)
    sets = multi_hot(labels, 3) | multi_hot(labels.roll(1), 3)
    assert ridge_head(features, sets, 3).logits(features).shape == (30, 3)


def test_a_probes_head_is_the_probe():
    features, labels = clusters(40, 1)
    probe, _ = fit_probe(features, labels, 3)
    torch.testing.assert_close(probe_head(probe).logits(features), probe(features)[0], atol=1e-4, rtol=1e-4)
