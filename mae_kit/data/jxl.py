"""JPEG XL by imagecodecs, after the size in the header was held against a cap (ISO/IEC 18181-1, annex D)."""

import re
from typing import NamedTuple

import imagecodecs
import numpy as np
from jaxtyping import Num

from mae_kit.errors import BadImage

_CODESTREAM, _CONTAINER = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
_RATIOS = (1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1)  # width to height
_LENGTHS = 9, 13, 18, 30  # bits of a size
_OF_PREVIEWS = (6, 8, 10, 12), (0, 0, 5, 9)  # of a size of theirs, and of one divided by 8
_SHAPE = re.compile(r" shape=\(([\d, ]+)\)")  # in a message of imagecodecs
_HEADER = 64  # bytes, more than a size and an orientation take


class Header(NamedTuple):
    """Of the upright image.

    Attributes:
        width: In pixels.
        height: In pixels.
        orientation: 1 to 8, as in EXIF; the decoder has turned what it returns.
        animated: Whether there may be several frames.
    """

    width: int
    height: int
    orientation: int
    animated: bool


class _Bits:
    """Numbers from the bits of some bytes, lowest first."""

    def __init__(self, data: bytes):
        self.rest = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self.rest & ((1 << count) - 1)
        self.rest >>= count
        return value

    def sides(self) -> tuple[int, int]:
        """Width and height."""
        small = bool(self.take(1))
        height = self._side(small)
        ratio = self.take(3)
        width = self._side(small) if not ratio else height * _RATIOS[ratio - 1][0] // _RATIOS[ratio - 1][1]
        return width, height

    def _side(self, small: bool) -> int:
        return 8 * (1 + self.take(5)) if small else 1 + self.take(_LENGTHS[self.take(2)])

    def skip_preview(self) -> None:
        lengths = _OF_PREVIEWS[self.take(1)]
        self.take(lengths[self.take(2)])
        if not self.take(3):  # of the ratios of its sides
            self.take(lengths[self.take(2)])


def is_jxl(data: bytes) -> bool:
    return data.startswith((_CODESTREAM, _CONTAINER))


def jxl_header(data: bytes) -> Header:
    """Read what the first bytes of the codestream tell.

    Raises:
        BadImage: There is no codestream.
    """
    bits = _Bits(_codestream(data)[len(_CODESTREAM) :])
    width, height = bits.sides()
    orientation, animated = 1, False
    if not bits.take(1) and bits.take(1):  # not all is as usual, and more fields follow
        orientation = 1 + bits.take(3)
        if bits.take(1):  # the size that it is meant to have
            bits.sides()
        if bits.take(1):
            bits.skip_preview()
        animated = bool(bits.take(1))
    return Header(*((height, width) if orientation >= 5 else (width, height)), orientation, animated)


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


def read_jxl(data: bytes, frame: int = 0) -> Num[np.ndarray, "h w c"]:
    """Decode a frame, upright, without alpha: 8 or 16 bits, or floats.

    Raises:
        BadImage: It does not decode.
        Exception: Whatever imagecodecs raises at damaged bytes.
    """
    values = imagecodecs.jpegxl_decode(data, index=frame)
    values = values[..., None] if values.ndim == 2 else values
    return np.ascontiguousarray(values[..., : 3 if values.shape[2] >= 3 else 1])


def jxl_frames(data: bytes) -> int:
    """Count the frames; of an animation the first is decoded for it.

    Raises:
        BadImage: They cannot be counted.
        Exception: As of `read_jxl`.
    """
    if not jxl_header(data).animated:
        return 1
    first = imagecodecs.jpegxl_decode(data, index=0)
    try:  # the decoder counts them before it looks where all of them shall go, and says what it would need
        imagecodecs.jpegxl_decode(data, out=np.empty(0, first.dtype))
    except ValueError as error:
        shape = _SHAPE.search(str(error))
        if shape:
            sides = [int(side) for side in shape[1].split(",")]
            return sides[0] if len(sides) > first.ndim else 1
    raise BadImage("an animated JPEG XL whose frames cannot be counted")
