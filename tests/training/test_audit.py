"""The audit of exactly once: it adds up over ranks, micro-batches and resumptions, and notices what is amiss."""

import itertools

import numpy as np
import pytest
import torch

from mae_kit.data.order import sample_seeds, samples_at, step_positions, sum_of_seeds
from mae_kit.training.audit import Audit, Epoch
from mae_kit.training.config import Plan

PLAN = Plan(samples=37, batch_size=8, epochs=4, seed=5)  # epochs end within batches


def see(audit: Audit, step: int, rank: int = 0, world: int = 1, parts: int = 1) -> None:
    """What training does with the batches of a step that the loader makes."""
    for part in range(parts):
        positions = step_positions(step, PLAN.batch_size, rank, world, part, parts)
        keys = sample_seeds(*samples_at(positions, PLAN.samples, PLAN.seed), PLAN.seed)
        seeds = torch.from_numpy(keys.view(np.int64).copy())
        audit.see(seeds, seeds, step, rank, world, part, parts)


def ended(audits: list[Audit], step: int) -> list[Epoch]:
    epochs = audits[0].over(step)
    if not epochs:
        return []
    sums = torch.stack([audit.take(epochs) for audit in audits]).sum(0)
    return [audits[0].result(epoch, row) for epoch, row in zip(epochs, sums, strict=True)]


@pytest.mark.parametrize(("world", "parts"), [(1, 1), (2, 1), (4, 1), (1, 4), (2, 2)])
def test_every_epoch_shows_every_sample_once(world: int, parts: int):
    audits, found = [Audit(PLAN) for _ in range(world)], []
    for step in range(PLAN.steps):
        for rank, audit in enumerate(audits):
            see(audit, step, rank, world, parts)
        found += ended(audits, step)
    assert [(epoch.epoch, epoch.shown) for epoch in found] == [(0, 37), (1, 37), (2, 37)]
    assert all(epoch.keys == epoch.expected for epoch in found)
    assert len({epoch.expected for epoch in found}) == 3


def test_it_goes_on_from_a_checkpoint_with_another_number_of_ranks():
    before = [Audit(PLAN) for _ in range(4)]
    for step, (rank, audit) in itertools.product(range(3), enumerate(before)):
        see(audit, step, rank, 4)
    after = [Audit(PLAN), Audit(PLAN)]
    after[0].resume(3, torch.stack([audit.under_way(3) for audit in before]).sum(0))
    found = []
    for step in range(3, 6):
        for rank, audit in enumerate(after):
            see(audit, step, rank, 2)
        found += ended(after, step)
    assert [(epoch.shown, epoch.keys == epoch.expected) for epoch in found] == [(37, True)]


def test_an_epoch_that_was_not_seen_whole_is_not_judged():
    audit, found = Audit.starting_at(PLAN, 3), []
    for step in range(3, PLAN.steps):
        see(audit, step)
        found += ended([audit], step)
    assert [(epoch.epoch, epoch.keys == epoch.expected) for epoch in found] == [(1, True), (2, True)]


@pytest.mark.parametrize("steps", [[0, 1, 1, 3, 4], [0, 1, 2, 2, 4], [0, 1, 2, 4, 3]])
def test_a_batch_in_place_of_another_is_noticed(steps: list[int]):
    """The keys of one step, counted at the place of another."""
    audit = Audit(PLAN)
    for step, shown in enumerate(steps):
        keys = sample_seeds(*samples_at(step_positions(shown, 8, 0, 1), 37, 5), 5)
        seeds = torch.from_numpy(keys.view(np.int64).copy())
        audit.see(seeds, seeds, step, 0, 1, 0, 1)
    (epoch,) = ended([audit], 4)
    assert epoch.keys != epoch.expected


def test_a_sample_in_place_of_another_is_not_attested():
    audit, (epochs, samples) = Audit(PLAN), samples_at(np.arange(40), 37, 5)
    for step in range(5):
        keys = [
            sample_seeds(epochs, of, 5)[step * 8 : step * 8 + 8] for of in (samples, np.where(samples == 9, 3, samples))
        ]
        expected, shown = (torch.from_numpy(each.view(np.int64).copy()) for each in keys)
        audit.see(expected, shown, step, 0, 1, 0, 1)
    (epoch,) = ended([audit], 4)
    assert (epoch.shown, epoch.replaced) == (37, 1) and epoch.keys != epoch.expected


def test_the_expected_sum_is_that_of_all_keys():
    keys = sample_seeds(np.full(37, 2), np.arange(37), 5)
    assert sum_of_seeds(2, 37, 5) == sum(map(int, keys)) % 2**64


def test_a_line_has_the_sums_in_hexadecimal():
    line = Epoch(3, 37, 0, 255, 2**64 - 1).line()
    assert line == {
        "audit_epoch": 3,
        "audit_samples": 37,
        "audit_replaced": 0,
        "audit_keys": "00000000000000ff",
        "audit_expected": "ffffffffffffffff",
    }
