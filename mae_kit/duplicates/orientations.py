"""The eight ways to lay a picture on its square: four flips, and each of them transposed."""

import numpy as np
from jaxtyping import UInt8, UInt64

ORIENTATIONS = (
    "as it is",
    "mirrored",
    "upside down, mirrored",
    "turned by 180°",
    "transposed",
    "turned left",
    "turned right",
    "transposed, turned by 180°",
)
"""What the first picture of a pair is turned by to look like the second."""

FLIPS = 4  # the first four; orientation 4 + k is flip k, then transposed


def turn(pictures: UInt8[np.ndarray, "k s s"], orientation: int) -> UInt8[np.ndarray, "k s s"]:
    """Square pictures in one of the orientations."""
    flip = orientation % FLIPS
    flipped = pictures[:, :: -1 if flip & 2 else 1, :: -1 if flip & 1 else 1]
    return flipped.swapaxes(1, 2) if orientation >= FLIPS else flipped


def turn_hashes(hashes: UInt64[np.ndarray, "n 4"], orientation: int) -> UInt64[np.ndarray, " n"]:
    """The hashes of turned pictures, from those of the four flips.

    The hash of a transposed picture is that of the picture with its 8 x 8 bits transposed, bit for bit: a cosine
    transform treats rows and columns alike. A flip changes signs, and the median with them, so flips are hashed.
    """
    flipped = np.ascontiguousarray(hashes[:, orientation % FLIPS])
    if orientation < FLIPS:
        return flipped
    bits = np.unpackbits(flipped.astype(">u8").view(np.uint8)).reshape(-1, 8, 8)
    return np.packbits(bits.swapaxes(1, 2)).view(">u8").astype(np.uint64)
