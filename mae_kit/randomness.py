"""Randomness that is keyed, not carried: every draw is a function of (seed, epoch, sample, stream, position).

A counter-based generator needs no state: a resumed run, another number of workers or ranks, another device draw the
same numbers. The mixing function is the finaliser of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014), written once for torch (int64, wrapping) and once for numpy (uint64).
"""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

STREAMS = FLIP, MASK, CROP, ORDER, REPLACEMENT, CORRUPTION, VIEW, JITTER, PREDICTED, AGAIN = tuple(range(10))
"""Streams: independent numbers for the same key."""

_GAMMA = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_NUMPY_ROUNDS, _LAST = tuple((np.uint64(shift), np.uint64(factor)) for shift, factor in _ROUNDS), np.uint64(31)


def mix(x: np.ndarray | np.uint64 | int) -> np.ndarray | np.uint64:
    """SplitMix64's finaliser, element by element: uint64 -> uint64, a bijection."""
    z = np.asarray(x, dtype=np.uint64)
    for shift, factor in _NUMPY_ROUNDS:
        z = np.multiply(z ^ (z >> shift), factor)  # which wraps; `*` of two scalars would warn
    return z ^ (z >> _LAST)


def combine(*parts: np.ndarray | np.integer | int) -> np.ndarray:
    """Fold integers (or arrays of them) into one uint64 key; the order of the parts matters."""
    key = np.uint64(0)
    with np.errstate(over="ignore"):
        for part in parts:
            key = mix(key + np.uint64(_GAMMA) + mix(np.asarray(part).astype(np.uint64)))
    return np.asarray(key)


def uniform_numpy(keys: np.ndarray, stream: int, count: int) -> np.ndarray:
    """Numbers in [0, 1) for each key: float64 [b count], the same as `uniform` up to its fp32 rounding."""
    with np.errstate(over="ignore"):
        positions = combine(stream) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GAMMA)
        z = mix(keys.astype(np.uint64)[:, None] + positions)
    return (z >> np.uint64(40)).astype(np.float64) / 2.0**24


def uniform(keys: Int64[Tensor, " b"], stream: int, count: int) -> Float[Tensor, "b count"]:
    """Numbers in [0, 1) with 24 bits for each key, on the keys' device: the same on every machine.

    Args:
        keys: One key a row, as `Batch.seeds` holds them.
        stream: One of the streams above.
        count: How many numbers a row.
    """
    minus_position = ~torch.arange(count, device=keys.device)  # `arange * GAMMA` compiles to 32-bit arithmetic
    offsets = minus_position * _signed(2**64 - _GAMMA) + _STARTS[stream]
    z = keys[:, None] + offsets
    for shift, factor in _ROUNDS:
        z = (z ^ _shift_right(z, shift)) * _signed(factor)
    z = z ^ _shift_right(z, 31)
    return _shift_right(z, 40).to(torch.float32) / 2**24


def repeated(keys: Int64[Tensor, " b"], times: int) -> Int64[Tensor, " n"]:
    """Keys for several draws of each sample: `times` in a row for each key, of which the first is the key itself."""
    offsets = [0, *(_signed(int(combine(AGAIN, number))) for number in range(1, times))]
    return (keys[:, None] + torch.tensor(offsets, device=keys.device)).flatten()


def _signed(x: int) -> int:
    """The int64 with the bits of this uint64: torch has no arithmetic on uint64."""
    return x - 2**64 if x >= 2**63 else x


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & (2 ** (64 - bits) - 1)


_STARTS = [_signed(int(combine(stream))) for stream in STREAMS]  # made here: torch.compile cannot trace numpy's uint64
