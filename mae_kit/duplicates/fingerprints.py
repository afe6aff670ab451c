"""Fingerprints of images: one task for each shard, its result stored next to the shard."""

import hashlib
from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8, UInt64

from mae_kit.data.index.open import Index
from mae_kit.data.index.sidecars import Arrays, Sidecars
from mae_kit.data.scale import to_gray
from mae_kit.duplicates.hashes import SIDE, flipped_hashes
from mae_kit.errors import BadImage
from mae_kit.parallel import Engine

THUMBNAIL = 16
PLAIN = 2.0


class Fingerprints(NamedTuple):
    """Fingerprints of n images, 360 bytes each.

    Attributes:
        hashes: Of the four flips.
        thumbnails: Gray, resized to a square.
        content: Hash of the file's bytes.
        decoded: False for images that cannot be decoded; their other values are 0.
        plain: True for images of one color, or nearly: the standard deviation of the thumbnail is below two of 255
            levels. The signs of their frequencies are noise.
    """

    hashes: UInt64[np.ndarray, "n 4"]
    thumbnails: UInt8[np.ndarray, "n 16 16"]
    content: UInt64[np.ndarray, " n"]
    decoded: Bool[np.ndarray, " n"]
    plain: Bool[np.ndarray, " n"]


def fingerprint(indices: Sequence[Index], workers: int = 0, engine: Engine = "processes") -> Fingerprints:
    """Fingerprint all samples of some indices, one after the other; existing results are read.

    Args:
        indices: Of shards.
        workers: Number of shards at once; 0 = one for each core.
        engine: Where they are.
    """
    empty = _blank(0)._asdict()
    kept = Sidecars("fingerprints", "phash of 4 flips, thumbnail 16, blake2b-64; 1", empty)
    made = (kept.compute(index, fingerprint_shard, workers, engine, preload=(__name__,)) for index in indices)
    parts = list(chain.from_iterable(made))
    return Fingerprints(**{name: np.concatenate([part[name] for part in parts]) for name in Fingerprints._fields})


def fingerprint_shard(part: Index, tick: Callable[[], None]) -> Arrays:
    """Compute the fields of `Fingerprints` for one shard."""
    found = _blank(len(part))
    for row in range(len(part)):
        tick()
        try:
            data = part.read(row)
            gray = to_gray(data, 2 * SIDE, part.scale)
        except BadImage:
            continue
        found.hashes[row], small = flipped_hashes(gray)
        found.thumbnails[row] = _halved(small)
        found.content[row] = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
        found.decoded[row], found.plain[row] = True, found.thumbnails[row].std() < PLAIN
    return found._asdict()


def _blank(count: int) -> Fingerprints:
    hashes, thumbnails = np.zeros((count, 4), np.uint64), np.zeros((count, THUMBNAIL, THUMBNAIL), np.uint8)
    return Fingerprints(hashes, thumbnails, np.zeros(count, np.uint64), *np.zeros((2, count), bool))


def _halved(small: UInt8[np.ndarray, "32 32"]) -> UInt8[np.ndarray, "16 16"]:
    means = small.reshape(THUMBNAIL, 2, THUMBNAIL, 2).mean(axis=(1, 3))
    return np.rint(means).astype(np.uint8)
