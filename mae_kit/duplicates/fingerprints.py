"""What is known of each image to find its copies: a task a shard, its result kept beside the shard."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8, UInt64

from mae_kit.data.decode import decode_scaled
from mae_kit.data.index import Index
from mae_kit.data.sidecars import Arrays, Sidecars
from mae_kit.duplicates.hashes import SIDE, flipped_hashes
from mae_kit.errors import BadImage

SIDECARS = Sidecars("fingerprints", "phash of 4 flips, thumbnail 16, blake2b-64; 1")
THUMBNAIL = 16
PLAIN = 2.0


class Fingerprints(NamedTuple):
    """Of n images, 360 bytes each.

    Attributes:
        hashes: Of the four flips.
        thumbnails: Grey, squeezed to a square.
        content: Hash of the file's bytes.
        decoded: False where an image does not decode; nothing else is known of it then.
    """

    hashes: UInt64[np.ndarray, "n 4"]
    thumbnails: UInt8[np.ndarray, "n 16 16"]
    content: UInt64[np.ndarray, " n"]
    decoded: Bool[np.ndarray, " n"]

    def plain(self) -> Bool[np.ndarray, " n"]:
        """Images of one colour, or nearly: the signs of their frequencies are noise, and their copies beyond telling.

        The standard deviation of the thumbnail is then under two of 255 levels.
        """
        return self.thumbnails.reshape(len(self.thumbnails), -1).std(axis=1, dtype=np.float32) < PLAIN


def fingerprint(index: Index, workers: int = 0) -> Fingerprints:
    """Of all samples of an index, in its order; what earlier calls have done is read.

    Args:
        index: The shards.
        workers: Processes; 0 = one a core.
    """
    parts = SIDECARS.compute(index, fingerprint_shard, workers, preload=(__name__,))
    return Fingerprints(**{name: np.concatenate([part[name] for part in parts]) for name in Fingerprints._fields})


def fingerprint_shard(part: Index, tick: Callable[[], None]) -> Arrays:
    """The task: fields of `Fingerprints` for one shard."""
    hashes, thumbnails = np.zeros((len(part), 4), np.uint64), np.zeros((len(part), THUMBNAIL, THUMBNAIL), np.uint8)
    content, decoded = np.zeros(len(part), np.uint64), np.zeros(len(part), bool)
    for row in range(len(part)):
        tick()
        try:
            data = part.read(row)
            grey = decode_scaled(data, 2 * SIDE, 2 * SIDE, channels=1)[..., 0]
        except BadImage:
            continue
        hashes[row], small = flipped_hashes(grey)
        thumbnails[row] = _halved(small)
        content[row] = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
        decoded[row] = True
    return {"hashes": hashes, "thumbnails": thumbnails, "content": content, "decoded": decoded}


def _halved(small: UInt8[np.ndarray, "32 32"]) -> UInt8[np.ndarray, "16 16"]:
    means = small.reshape(THUMBNAIL, 2, THUMBNAIL, 2).mean(axis=(1, 3))
    return np.rint(means).astype(np.uint8)
