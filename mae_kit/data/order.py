"""The order of a run is arithmetic: which sample stands at which position, for any world size, without state.

A run is one stream of positions. Position p belongs to epoch p // n and shows sample permutation_epoch(p % n), so that
every epoch shows every sample exactly once, batches run on across the border of two epochs, and the number of steps is
known. Step s of global batch B covers positions s*B .. s*B + B - 1; ranks and micro-batches share them out.
"""

import numpy as np

from mae_kit.randomness import ORDER, combine, mix

_ROUNDS = 4
_BLOCK = 2**20


def permute(index: np.ndarray, n: int, key: int) -> np.ndarray:
    """A keyed pseudo-random permutation of 0 .. n-1, evaluated at `index` alone (O(1) memory for any n).

    A Feistel network over the smallest even number of bits that holds n; values that fall outside walk on along their
    cycle until they are inside (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).

    Args:
        index: Positions, each in 0 .. n-1.
        n: Size of the domain.
        key: Chooses the permutation.
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    value = np.asarray(index).astype(np.uint64)
    outside = np.ones(value.shape, dtype=bool)
    while outside.any():
        value[outside] = _feistel(value[outside], half, key)
        outside = value >= n
    return value.astype(np.int64)


def _feistel(value: np.ndarray, half: int, key: int) -> np.ndarray:
    mask = np.uint64(2**half - 1)
    left, right = value >> np.uint64(half), value & mask
    for round_key in combine(key, np.arange(_ROUNDS)):
        with np.errstate(over="ignore"):
            left, right = right, left ^ (mix(right + round_key) & mask)
    return (left << np.uint64(half)) | right


def samples_at(positions: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Epoch and sample number (0 .. n-1) at each position of the stream, int64 both."""
    epochs, within = np.divmod(positions, n)
    samples = np.empty(len(positions), dtype=np.int64)
    for epoch in np.unique(epochs):
        rows = epochs == epoch
        samples[rows] = permute(within[rows], n, int(combine(seed, ORDER, int(epoch))))
    return epochs, samples


def sample_keys(epochs: np.ndarray, samples: np.ndarray, seed: int) -> np.ndarray:
    """The random key of each (seed, epoch, sample): uint64."""
    return combine(seed, epochs, samples)


def sum_of_keys(epoch: int, n: int, seed: int) -> int:
    """The sum, modulo 2 ** 64, of the keys of an epoch that shows each of n samples once."""
    total = 0
    for start in range(0, n, _BLOCK):
        samples = np.arange(start, min(start + _BLOCK, n))
        total += int(sample_keys(np.full(len(samples), epoch), samples, seed).sum(dtype=np.uint64))
    return total % 2**64


def share(step: int, batch: int, rank: int, world: int, part: int = 0, parts: int = 1) -> np.ndarray:
    """Positions of one rank's micro-batch `part` of `parts` in a step of the global batch.

    The shares of a step are disjoint, cover it, and have the same size.
    """
    size = batch // (world * parts)
    start = step * batch + (part * world + rank) * size
    return np.arange(start, start + size)
