"""The perceptual hash of a picture, by ImageHash: 64 signs of its lowest frequencies. Its only doorway."""

import imagehash
import numpy as np
from jaxtyping import UInt8
from PIL import Image

SIDE = 32  # px; `phash` looks at pictures of this size
_FLIPS = (None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_180)


def flipped_hashes(gray: UInt8[np.ndarray, "h w"]) -> tuple[list[int], UInt8[np.ndarray, "32 32"]]:
    """Hashes of the four flips of a gray picture, and the small picture that they were taken of.

    The most significant bit is the mean's, which is set in all but black pictures; then row by row of frequencies.
    """
    small = Image.fromarray(gray).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return [_hash(small if flip is None else small.transpose(flip)) for flip in _FLIPS], np.asarray(small)


def _hash(small: Image.Image) -> int:
    return int.from_bytes(np.packbits(imagehash.phash(small).hash).tobytes(), "big")
