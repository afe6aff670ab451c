"""The order of a run is arithmetic: which sample stands at which position, for any world size, without state.

A run is one stream of positions. Position p belongs to epoch p // n and shows sample permutation_epoch(p % n), so that
every epoch shows every sample exactly once, batches run on across the border of two epochs, and the number of steps is
known. Step s of global batch B covers positions s*B .. s*B + B - 1; split across ranks and micro-batches.

Where shards are far away, or seeking is slow, an epoch may mix a few shards at a time instead of all samples: `Order`.
"""

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from mae_kit.randomness import ORDER, combine, mix

_ROUNDS = 4
_BLOCK = 2**20
_AHEAD = 2**12  # positions that are permuted at a time: numpy costs much more a call than a position


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
    round_keys = combine(key, np.arange(_ROUNDS))
    value = np.asarray(index).astype(np.uint64)
    outside = np.arange(len(value))
    while len(outside):
        walked = _feistel(value[outside], half, round_keys)
        value[outside] = walked
        outside = outside[walked >= n]
    return value.astype(np.int64)


def _feistel(value: np.ndarray, half: int, round_keys: np.ndarray) -> np.ndarray:
    mask = np.uint64(2**half - 1)
    left, right = value >> np.uint64(half), value & mask
    for round_key in round_keys:  # arrays of uint64 wrap without a warning
        left, right = right, left ^ (mix(right + round_key) & mask)
    return (left << np.uint64(half)) | right


def samples_at(positions: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Epoch and sample number (0 .. n-1) at each position of the stream, int64 both."""
    epochs, within = np.divmod(positions, n)
    parts, places = np.divmod(within, _AHEAD)
    samples = np.empty(len(positions), dtype=np.int64)
    for epoch, part in {*zip(epochs.tolist(), parts.tolist(), strict=True)}:
        rows = (epochs == epoch) & (parts == part)
        samples[rows] = _permuted(n, seed, epoch, part)[places[rows]]
    return epochs, samples


@lru_cache(maxsize=8)
def _permuted(n: int, seed: int, epoch: int, part: int) -> np.ndarray:
    """The sample numbers at `_AHEAD` positions of an epoch, from number `part * _AHEAD`."""
    positions = np.arange(part * _AHEAD, min((part + 1) * _AHEAD, n))
    return permute(positions, n, int(combine(seed, ORDER, epoch)))


class _Windows(NamedTuple):
    """The windows of one epoch.

    Attributes:
        shards: int64 [s], in their order of this epoch.
        start: int64 [s + 1]: position in the epoch that the first sample of a shard would have unmixed.
        border: int64 [w + 1]: position in the epoch that a window begins at.
        key: Of the epoch.
    """

    shards: np.ndarray
    start: np.ndarray
    border: np.ndarray
    key: int


@dataclass(eq=False)
class Order:
    """Which sample stands at which position of the stream, all samples mixed or a few shards at a time.

    A few at a time, the shards of an epoch are permuted and cut into windows of `mix_shards`; the samples of a window
    are permuted, and one window follows another. A reader then needs the files of one window at a time, for any number
    of epochs: what a bounded cache of remote shards, a spinning disk and a network file system want.

    Args:
        counts: Samples of each shard, int64; samples are numbered from shard to shard.
        mix_shards: Shards mixed at a time; 0 mixes all samples.
        seed: Of the run.
    """

    counts: np.ndarray
    mix_shards: int
    seed: int
    _cached: dict[int, _Windows] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def _total(self) -> int:
        return int(self.counts.sum())

    @cached_property
    def _first(self) -> np.ndarray:
        """The number of each shard's first sample."""
        return np.cumsum(self.counts) - self.counts

    def samples_at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Epoch and sample number at each position, int64 both."""
        if not self.mix_shards:
            return samples_at(positions, self._total, self.seed)
        epochs, within = np.divmod(positions, self._total)
        samples = np.empty(len(positions), dtype=np.int64)
        for epoch in np.unique(epochs):
            rows = epochs == epoch
            samples[rows] = self._samples_of(self._windows(int(epoch)), within[rows])
        return epochs, samples

    def _windows(self, epoch: int) -> _Windows:
        if epoch not in self._cached:
            key, filled = int(combine(self.seed, ORDER, epoch)), np.flatnonzero(self.counts)
            shards = filled[permute(np.arange(len(filled)), len(filled), key)]
            start = np.concatenate([[0], np.cumsum(self.counts[shards])])
            recent = {number: self._cached[number] for number in list(self._cached)[-1:]}
            self._cached = recent | {
                epoch: _Windows(shards, start, np.append(start[: -1 : self.mix_shards], start[-1]), key)
            }
        return self._cached[epoch]

    def _samples_of(self, windows: _Windows, within: np.ndarray) -> np.ndarray:
        """Sample numbers at positions within an epoch."""
        unmixed = np.empty(len(within), dtype=np.int64)
        window_of = np.searchsorted(windows.border, within, side="right") - 1
        for window in np.unique(window_of):
            rows, (first, end) = window_of == window, windows.border[window : window + 2]
            mixed = permute(within[rows] - first, int(end - first), int(combine(windows.key, window)))
            unmixed[rows] = first + mixed
        place = np.searchsorted(windows.start, unmixed, side="right") - 1
        return self._first[windows.shards[place]] + unmixed - windows.start[place]

    def shards_from(self, position: int) -> list[int]:
        """The shards of the window that holds this position, then those of the next window, in their order."""
        if not self.mix_shards:
            return np.flatnonzero(self.counts).tolist()
        epoch, within = divmod(position, self._total)
        windows = self._windows(epoch)
        window = int(np.searchsorted(windows.border, within, side="right")) - 1
        shards = windows.shards[window * self.mix_shards : (window + 2) * self.mix_shards].tolist()
        if window == len(windows.border) - 2:
            shards += self._windows(epoch + 1).shards[: self.mix_shards].tolist()
        return list(dict.fromkeys(shards))


def sample_seeds(epochs: np.ndarray, samples: np.ndarray, seed: int) -> np.ndarray:
    """The random seed of each (seed of the run, epoch, sample): uint64."""
    return combine(seed, epochs, samples)


def sum_of_seeds(epoch: int, n: int, seed: int) -> int:
    """The sum, modulo 2 ** 64, of the seeds of an epoch that shows each of n samples once."""
    total = 0
    for start in range(0, n, _BLOCK):
        samples = np.arange(start, min(start + _BLOCK, n))
        total += int(sample_seeds(np.full(len(samples), epoch), samples, seed).sum(dtype=np.uint64))
    return total % 2**64


def step_positions(
    step: int, batch_size: int, rank: int, world_size: int, number: int = 0, micro_batches: int = 1
) -> np.ndarray:
    """Positions of one rank's micro-batch in a step of the global batch.

    The micro-batches of a step are disjoint, cover it, and have the same size.
    """
    size = batch_size // (world_size * micro_batches)
    start = step * batch_size + (number * world_size + rank) * size
    return np.arange(start, start + size)
