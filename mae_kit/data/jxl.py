"""JPEG XL by imagecodecs, after the size in the header was held against a cap (ISO/IEC 18181-1, annex D)."""

from typing import NamedTuple

import imagecodecs
import numpy as np
from jaxtyping import Num

from mae_kit.errors import BadImage

_CODESTREAM, _CONTAINER = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
_RATIOS = (1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1)  # width to height
_LENGTHS = 9, 13, 18, 30  # bits of a size
_HEADER = 64  # bytes, more than a size and an orientation take


class Header(NamedTuple):
    """Of the upright image.

    Attributes:
        width: In pixels.
        height: In pixels.
        orientation: 1 to 8, as in EXIF; the decoder has turned what it returns.
    """

    width: int
    height: int
    orientation: int


class _Bits:
    """Numbers from the bits of some bytes, lowest first."""

    def __init__(self, data: bytes):
        self.rest = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self.rest & ((1 << count) - 1)
        self.rest >>= count
        return value

    def size(self, small: bool) -> int:
        return 8 * (1 + self.take(5)) if small else 1 + self.take(_LENGTHS[self.take(2)])


def is_jxl(data: bytes) -> bool:
    return data.startswith((_CODESTREAM, _CONTAINER))


def jxl_header(data: bytes) -> Header:
    """Read what the first bytes of the codestream tell.

    Raises:
        BadImage: There is no codestream.
    """
    bits = _Bits(_codestream(data)[len(_CODESTREAM) :])
    small = bool(bits.take(1))
    height = bits.size(small)
    ratio = bits.take(3)
    width = bits.size(small) if not ratio else height * _RATIOS[ratio - 1][0] // _RATIOS[ratio - 1][1]
    plain = bits.take(1) or not bits.take(1)
    orientation = 1 if plain else 1 + bits.take(3)
    return Header(*((height, width) if orientation >= 5 else (width, height)), orientation)


def _codestream(data: bytes) -> bytes:
    """The first bytes of what lies in the boxes of a container."""
    if data.startswith(_CODESTREAM):
        return data[:_HEADER]
    at = len(_CONTAINER)
    while at + 8 <= len(data):
        size, kind, start = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], at + 8
        if size == 1:
            size, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        if kind in (b"jxlc", b"jxlp"):
            start += 4 * (kind == b"jxlp")  # the number of the part
            return data[start : start + _HEADER]
        at += size or len(data)
        if size and at < start:
            break
    raise BadImage("a JPEG XL file without an image")


def read_jxl(data: bytes) -> Num[np.ndarray, "h w c"]:
    """Decode the first frame, upright, without alpha: 8 or 16 bits, or floats.

    Raises:
        BadImage: It does not decode.
        Exception: Whatever imagecodecs raises at damaged bytes.
    """
    values = imagecodecs.jpegxl_decode(data, index=0)
    values = values[..., None] if values.ndim == 2 else values
    return np.ascontiguousarray(values[..., : 3 if values.shape[2] >= 3 else 1])
