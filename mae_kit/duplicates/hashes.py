"""Perceptual hashes of an image in its eight orientations, by ImageHash: 64 signs of its lowest frequencies.

The orientations are four flips, and each of them transposed.
"""

import imagehash
import numpy as np
from jaxtyping import UInt8, UInt64
from PIL import Image

ORIENTATIONS = (
    "unchanged",
    "mirrored",
    "upside down, mirrored",
    "rotated by 180°",
    "transposed",
    "rotated left",
    "rotated right",
    "transposed, rotated by 180°",
)
"""How the first image of a pair is turned to look like the second."""

FLIPS = 4  # the first four; orientation 4 + k is flip k, then transposed
SIDE = 32  # px; `phash` takes images of this size
_FLIPS = (None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_180)


def flipped_hashes(gray: UInt8[np.ndarray, "h w"]) -> tuple[list[int], UInt8[np.ndarray, "32 32"]]:
    """Hash the four flips of a gray image; returns the hashes and the small image that they are computed from.

    The most significant bit is that of the mean, which is set in all but black images; then frequencies row by row.
    """
    small = Image.fromarray(gray).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return [_hash(small if flip is None else small.transpose(flip)) for flip in _FLIPS], np.asarray(small)


def _hash(small: Image.Image) -> int:
    return int.from_bytes(np.packbits(imagehash.phash(small).hash).tobytes(), "big")


def turn(images: UInt8[np.ndarray, "k s s"], orientation: int) -> UInt8[np.ndarray, "k s s"]:
    """Turn square images to one of the orientations."""
    flip = orientation % FLIPS
    flipped = images[:, :: -1 if flip & 2 else 1, :: -1 if flip & 1 else 1]
    return flipped.swapaxes(1, 2) if orientation >= FLIPS else flipped


def turn_hashes(hashes: UInt64[np.ndarray, "n 4"], orientation: int) -> UInt64[np.ndarray, " n"]:
    """Compute the hashes of turned images from those of the four flips.

    Transposing an image transposes the 8 x 8 bits of its hash: a cosine transform treats rows and columns equally. A
    flip changes signs, and with them the median, so flips are hashed separately.
    """
    flipped = np.ascontiguousarray(hashes[:, orientation % FLIPS])
    if orientation < FLIPS:
        return flipped
    bits = np.unpackbits(flipped.astype(">u8").view(np.uint8)).reshape(-1, 8, 8)
    return np.packbits(bits.swapaxes(1, 2)).view(">u8").astype(np.uint64)
