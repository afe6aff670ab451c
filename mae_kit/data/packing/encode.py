"""One image to the bytes that a shard stores, and to its share of the channel statistics."""

import io
import math
from typing import NamedTuple

import numpy as np
import simplejpeg
from jaxtyping import Num
from PIL import Image

from mae_kit.data.decode import Array, decode, decode_deep, decode_scaled, image_size, largest_of_16_bits
from mae_kit.errors import BadImage

_PIXELS_A_SIDE = 128
_VALUES = np.arange(256)


class Moments(NamedTuple):
    """Sums over images of the mean of each channel, and of its square; values 0..1, every image counts the same."""

    value: np.ndarray
    square: np.ndarray


class Levels(NamedTuple):
    """The values of an image of more than 8 bits that become 0 and 255."""

    black: float
    white: float

    @property
    def span(self) -> float:
        return self.white - self.black


class Stored(NamedTuple):
    """One image as a shard stores it.

    Attributes:
        suffix: Of its file, without dot.
        data: Of its file.
        moments: Of its pixels.
        largest: The largest value, up to 65,535, of an image of 16 bits whose upper 8 are kept; None of others.
    """

    suffix: str
    data: bytes
    moments: Moments
    largest: int | None = None


def encode(data: bytes, resize: int | None, quality: int, channels: int, levels: Levels | None = None) -> Stored:
    """Decode an image to see that it is sound, and make of it what a shard stores.

    Args:
        data: The file as the source has it.
        resize: Pixels of the shorter side at most, then the image is stored as JPEG; None stores `data` untouched.
        quality: Of the JPEG, 1 to 100.
        channels: 3, 1, or, without resize, those of a .npy.
        levels: What becomes of more than 8 bits; None keeps the upper 8 of 16.

    Raises:
        BadImage: It does not decode.
    """
    deep = decode_deep(data)
    if deep is None:
        return _encode(data, resize, quality, channels)
    if levels is not None:
        return _encode(_to_8_bits(deep, levels), resize, quality, channels)
    return _encode(data, resize, quality, channels)._replace(largest=largest_of_16_bits(deep))


def _to_8_bits(values: Num[np.ndarray, "h w c"], levels: Levels) -> bytes:
    """A PNG where there are 1 or 3 channels, which others can open; else a .npy."""
    if not np.isfinite(values).all():
        raise BadImage("pixels that are not finite")
    shares = (values.astype(np.float64) - levels.black) / levels.span
    pixels = np.rint(255 * shares.clip(0, 1)).astype(np.uint8)
    stream = io.BytesIO()
    if pixels.shape[2] in (1, 3):
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(stream, "PNG")
    else:
        np.save(stream, np.ascontiguousarray(pixels))
    return stream.getvalue()


def _encode(data: bytes, resize: int | None, quality: int, channels: int) -> Stored:
    if resize is None:
        moments = _moments(decode(data, channels))
        return Stored(_suffix(data), data, moments)
    pixels = _shrink(data, resize, channels)
    gray = bool((pixels[..., :1] == pixels).all())
    stored = np.ascontiguousarray(pixels[..., :1]) if gray else pixels
    return Stored("jpg", _to_jpeg(stored, quality), _moments(pixels))


def _suffix(data: bytes) -> str:
    """Of what the bytes are, whatever the file was called; `decode` has accepted them, so it is one of these."""
    starts = {b"\xff\xd8": "jpg", b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp", b"P": "ppm"}
    starts |= {b"II": "tif", b"MM": "tif", b"\x93NUMPY": "npy"}
    return next((suffix for start, suffix in starts.items() if data.startswith(start)), "dib")  # it begins with a size


def _shrink(data: bytes, short_side: int, channels: int) -> Array:
    """Decode with the shorter side at most `short_side` pixels.

    libjpeg's scaling is used down to twice that size only, where it costs no detail, then bicubic with antialias.
    """
    width, height = image_size(data)
    scale = min(1.0, short_side / min(width, height))
    pixels = decode_scaled(data, 2 * short_side, 2 * short_side, channels)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (pixels.shape[1], pixels.shape[0]):
        return pixels
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(size[1], size[0], channels)


def _to_jpeg(pixels: Array, quality: int) -> bytes:
    if pixels.shape[2] == 1:
        return simplejpeg.encode_jpeg(pixels, quality, "GRAY", "Gray")
    return simplejpeg.encode_jpeg(pixels, quality, "RGB", "420")


def _moments(pixels: Array) -> Moments:
    """Of a grid of 128 to 256 pixels a side at most, which is plenty for a mean; whole numbers until the end."""
    step = max(1, math.isqrt(pixels.shape[0] * pixels.shape[1]) // _PIXELS_A_SIDE)
    grid = pixels[::step, ::step]
    # Counting values is six times as fast as summing over the first axis of an array [n 3].
    counts = np.stack([np.bincount(grid[..., c].ravel(), minlength=256) for c in range(grid.shape[2])])
    size = grid.shape[0] * grid.shape[1]
    return Moments(counts @ _VALUES / (size * 255), counts @ _VALUES**2 / (size * 255**2))
