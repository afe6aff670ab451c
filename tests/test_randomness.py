"""Keyed randomness: uniform, independent, and the same for torch and numpy, which is what a resumed run relies on."""

import os
import shutil
import subprocess

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.processes import Programs

from mae_kit.data.order import sample_seeds
from mae_kit.randomness import CROP, FLIP, MASK, ORDER, REPLACEMENT, combine, mix, repeated, uniform, uniform_numpy

STREAMS = (FLIP, MASK, CROP, ORDER, REPLACEMENT)


def keys(count: int, seed: int = 0) -> np.ndarray:
    return sample_seeds(np.zeros(count, int), np.arange(count), seed)


def as_torch(numbers: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(numbers.view(np.int64).copy())


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20), st.sampled_from(STREAMS), st.integers(1, 9))
def test_torch_and_numpy_draw_the_same(some: list[int], stream: int, count: int):
    numbers = np.array(some, np.uint64)
    ours = uniform(as_torch(numbers), stream, count)
    assert torch.equal(ours.double(), torch.from_numpy(uniform_numpy(numbers, stream, count)))


def test_known_values():
    """Another value would change every run that is resumed with a newer version."""
    assert int(mix(1)) == 0x5692161D100B05E5
    assert [int(k) for k in combine(7, np.arange(2))] == [int(combine(7, 0)), int(combine(7, 1))]
    assert uniform(torch.tensor([1]), MASK, 2).tolist() == [[0.3531162142753601, 0.18077009916305542]]


def test_mix_is_a_bijection_on_a_sample():
    some = np.random.default_rng(0).integers(0, 2**63, 100_000).astype(np.uint64)
    assert len(np.unique(mix(some))) == len(np.unique(some))


@pytest.mark.parametrize("stream", STREAMS)
def test_draws_are_uniform(stream: int):
    draws = uniform_numpy(keys(4000), stream, 50)
    assert draws.min() >= 0 and draws.max() < 1
    counts = np.histogram(draws, bins=100, range=(0, 1))[0]
    expected = draws.size / 100
    chi = ((counts - expected) ** 2 / expected).sum()
    assert chi < 99 + 5 * np.sqrt(2 * 99), "the chi-square of 99 degrees of freedom, five deviations up"
    assert np.abs(draws.mean(axis=0) - 0.5).max() < 5 / np.sqrt(12 * 4000), "no position is biased"
    assert np.abs(draws.mean(axis=1) - 0.5).max() < 6 / np.sqrt(12 * 50), "nor any key"


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    return abs(float(np.corrcoef(x.ravel(), y.ravel())[0, 1]))


def test_streams_keys_positions_and_seeds_are_independent():
    limit = 5 / np.sqrt(4000 * 20)
    by_stream = [uniform_numpy(keys(4000), stream, 20) for stream in STREAMS]
    for i, x in enumerate(by_stream):
        for y in by_stream[:i]:
            assert correlation(x, y) < limit and not np.isclose(x, y, atol=1e-6).all(axis=1).any()
    x = by_stream[0]
    assert correlation(x[1:], x[:-1]) < limit and correlation(x[:, 1:], x[:, :-1]) < limit
    assert correlation(x, uniform_numpy(keys(4000, seed=1), FLIP, 20)) < limit


def test_more_draws_begin_like_fewer():
    assert np.array_equal(uniform_numpy(keys(5), CROP, 9)[:, :4], uniform_numpy(keys(5), CROP, 4))


def test_keys_differ_by_seed_epoch_and_sample():
    samples = np.arange(500)
    every = [sample_seeds(np.full(500, epoch), samples, seed) for epoch in range(5) for seed in (0, 1, -1, 2**63 - 1)]
    assert len(np.unique(np.concatenate(every))) == 500 * 5 * 4


def test_repeated_keys_are_others():
    own = as_torch(keys(500))
    several = repeated(own, 4).reshape(500, 4)
    assert torch.equal(several[:, 0], own) and len(several.unique()) == 4 * 500
    draws = uniform(several.flatten(), MASK, 20).numpy().reshape(500, 4, 20)
    assert all(correlation(draws[:, 0], draws[:, number]) < 5 / np.sqrt(500 * 20) for number in (1, 2, 3))


def test_order_of_the_parts_matters():
    assert int(combine(1, 2)) != int(combine(2, 1)) and int(combine(1)) != int(combine(1, 0))


# In a process of its own: here every function is wrapped by the shape checks, which torch.compile does not see through.
COMPILED = """
import torch
from mae_kit.randomness import MASK, uniform
keys = torch.arange(50) * 0x1234567890ABCDEF
assert torch.equal(torch.compile(uniform, fullgraph=True)(keys, MASK, 64), uniform(keys, MASK, 64))
"""


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_draws_are_the_same(programs: Programs):
    alone = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "1"}  # else it starts as many processes as cores
    subprocess.run([programs.python, "-c", COMPILED], check=True, env=alone)
