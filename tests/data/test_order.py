"""The order of a run: a permutation each epoch, shared out without gap or overlap, for any number of processes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mae_kit.data.order import Order, permute, sample_seeds, samples_at, step_positions
from mae_kit.randomness import ORDER, combine


@settings(max_examples=30)
@given(n=st.integers(1, 5000), key=st.integers(0, 2**64 - 1))
def test_a_permutation_for_any_size(n: int, key: int):
    assert np.array_equal(np.sort(permute(np.arange(n), n, key)), np.arange(n))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 15, 16, 17, 255, 256, 257, 65_536, 65_537, 1_281_167])
def test_a_permutation_at_the_edges(n: int):
    assert np.array_equal(np.bincount(permute(np.arange(n), n, 3), minlength=n), np.ones(n))


@settings(max_examples=30)
@given(n=st.integers(2, 10**12), at=st.integers(0, 10**12 - 1))
def test_one_place_of_a_huge_permutation(n: int, at: int):
    (place,) = permute(np.array([at % n]), n, 9)
    assert 0 <= place < n


def test_a_stream_is_the_permutations_of_its_epochs():
    n, seed = 9_469, 3  # permuted in parts, of which the last is short
    positions = np.random.default_rng(0).integers(0, 3 * n, 2_000)
    epochs, samples = samples_at(positions, n, seed)
    for epoch in range(3):
        rows = epochs == epoch
        key = int(combine(seed, ORDER, epoch))
        assert np.array_equal(samples[rows], permute(positions[rows] % n, n, key))


def test_permutations_look_shuffled():
    n = 10_000
    first, second = permute(np.arange(n), n, 1), permute(np.arange(n), n, 2)
    for order in (first, second):
        assert abs(np.corrcoef(np.arange(n), order)[0, 1]) < 0.05
        assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.05, "neighbors part"
    assert (first == second).mean() < 0.01 and (first == np.arange(n)).mean() < 0.01


def test_where_each_sample_lands_is_uniform():
    n, keys = 100, 200
    places = np.array([permute(np.arange(n), n, int(key)) for key in np.random.default_rng(0).integers(0, 2**62, keys)])
    counts = np.stack([np.bincount(column, minlength=n) for column in places.T])
    chi = ((counts - keys / n) ** 2 / (keys / n)).sum(axis=1)
    assert chi.max() < n - 1 + 6 * np.sqrt(2 * (n - 1))


@given(n=st.integers(1, 300), batch=st.integers(5, 64), epochs=st.integers(1, 4), seed=st.integers(0, 2**31))
@settings(max_examples=30)
def test_every_epoch_shows_each_sample_once_across_batch_borders(n: int, batch: int, epochs: int, seed: int):
    steps = -(-epochs * n // batch)
    epoch, sample = samples_at(np.concatenate([step_positions(step, batch, 0, 1) for step in range(steps)]), n, seed)
    for number in range(epochs):
        assert np.array_equal(np.sort(sample[epoch == number]), np.arange(n))
    assert np.array_equal(epoch, np.sort(epoch))


def test_epochs_and_seeds_have_different_orders():
    orders = [samples_at(np.arange(epoch * 50, epoch * 50 + 50), 50, seed)[1] for epoch in range(3) for seed in (0, 1)]
    assert len({tuple(order) for order in orders}) == 6


@settings(max_examples=30)
@given(
    world=st.integers(1, 8),
    parts=st.integers(1, 6),
    size=st.integers(1, 7),
    step=st.integers(0, 10**7),
    n=st.integers(40, 999),
)
def test_micro_batches_are_disjoint_and_cover_the_step(world: int, parts: int, size: int, step: int, n: int):
    batch = world * parts * size
    shares = [step_positions(step, batch, rank, world, part, parts) for rank in range(world) for part in range(parts)]
    assert all(len(positions) == size for positions in shares)
    together = np.sort(np.concatenate(shares))
    assert np.array_equal(together, np.arange(step * batch, (step + 1) * batch)), "whatever world and parts are"
    epochs, samples = samples_at(together, n, 5)
    keys = np.concatenate([sample_seeds(*samples_at(positions, n, 5), 5) for positions in shares])
    assert np.array_equal(np.sort(keys), np.sort(sample_seeds(epochs, samples, 5))), "and so are the random keys"


# A few shards at a time

COUNTS = st.lists(st.integers(0, 60), min_size=1, max_size=12).filter(any)


@settings(max_examples=30)
@given(counts=COUNTS, mix=st.integers(0, 14), batch=st.integers(1, 50), seed=st.integers(0, 2**31))
def test_every_epoch_shows_each_sample_once_whatever_is_mixed(counts: list[int], mix: int, batch: int, seed: int):
    order, n = Order(np.array(counts), mix, seed), sum(counts)
    epoch, sample = order.samples_at(
        np.concatenate([step_positions(step, batch, 0, 1) for step in range(-(-3 * n // batch))])
    )
    for number in range(3):
        assert np.array_equal(np.sort(sample[epoch == number]), np.arange(n))
    assert np.array_equal(epoch, np.sort(epoch))


@settings(max_examples=30)
@given(counts=COUNTS, mix=st.integers(1, 14), seed=st.integers(0, 2**31))
def test_a_window_needs_its_shards_alone(counts: list[int], mix: int, seed: int):
    """And they are known beforehand: nothing is read that was not announced, at most two windows ahead."""
    order, n = Order(np.array(counts), mix, seed), sum(counts)
    shard = np.repeat(np.arange(len(counts)), counts)[order.samples_at(np.arange(2 * n))[1]]
    filled, at = np.count_nonzero(counts), 0
    windows = -(-filled // mix)
    for window in range(2 * windows):
        announced = order.shards_from(at)
        here = announced[:mix] if (window + 1) % windows else announced[: filled - (windows - 1) * mix]
        length = sum(counts[number] for number in here)
        assert set(shard[at : at + length]) == set(here) and len(announced) <= 2 * mix
        assert set(shard[at + length : at + length + 1]) <= set(announced)
        at += length
    assert at == 2 * n


def test_all_samples_mixed_is_the_order_without_windows():
    counts, positions = np.array([3, 0, 9]), np.arange(40)
    for got, expected in zip(Order(counts, 0, 7).samples_at(positions), samples_at(positions, 12, 7), strict=True):
        assert np.array_equal(got, expected)
    assert Order(counts, 0, 7).shards_from(5) == [0, 2]


def test_windows_look_shuffled():
    order = Order(np.full(40, 50), 4, 1)
    first, second = (order.samples_at(np.arange(start, start + 2000))[1] for start in (0, 2000))
    groups = [{frozenset(part.tolist()) for part in (epoch // 50).reshape(10, 200)} for epoch in (first, second)]
    assert groups[0].isdisjoint(groups[1]), "each epoch groups other shards"
    window = first[:200]
    assert abs(np.corrcoef(np.arange(200), window % 50)[0, 1]) < 0.2
    assert abs(np.corrcoef(window[1:] % 50, window[:-1] % 50)[0, 1]) < 0.2, "neighbors part"
    assert not np.array_equal(first % 50, second % 50)
    assert not np.array_equal(first, Order(np.full(40, 50), 4, 2).samples_at(np.arange(2000))[1])


@settings(max_examples=30)
@given(counts=COUNTS, mix=st.integers(0, 14), starts=st.lists(st.integers(0, 10**6), min_size=1, max_size=5))
def test_a_position_has_its_sample_wherever_it_is_asked_from(counts: list[int], mix: int, starts: list[int]):
    """As a resumed run asks, or another rank."""
    asked = Order(np.array(counts), mix, 3)
    for start in starts:
        positions = np.arange(start, start + 20)
        alone = [int(Order(np.array(counts), mix, 3).samples_at(positions[i : i + 1])[1][0]) for i in (0, 7, 19)]
        assert asked.samples_at(positions)[1][[0, 7, 19]].tolist() == alone
