"""One image of 8 bits to the bytes that a shard stores, and to its part of the channel statistics."""

import io
import math
from typing import NamedTuple

import numpy as np
import simplejpeg
from jaxtyping import Num
from PIL import Image

from mae_kit.data.decode import MAX_PIXELS, Array, decode, decode_raw, decode_scaled, image_size, left_out
from mae_kit.errors import BadImage

_PIXELS_A_SIDE = 128
_VALUES = np.arange(256)


class Moments(NamedTuple):
    """Sums over images of the mean of each channel, and of its square; values 0..1, every image counts the same."""

    value: np.ndarray
    square: np.ndarray


class Stored(NamedTuple):
    """One image as a shard stores it.

    Attributes:
        suffix: Of its file, without dot.
        data: Of its file.
        moments: Of its pixels, where they have 8 bits.
        values: Its pixels, where they have more.
        left_out: What of the source is not stored; empty where all is.
    """

    suffix: str
    data: bytes
    moments: Moments | None = None
    values: Num[np.ndarray, "h w c"] | None = None
    left_out: str = ""


def encode(data: bytes, resize: int | None, quality: int, channels: int, max_pixels: int = MAX_PIXELS) -> Stored:
    """Decode an image of 8 bits to see that it is sound, and make of it what a shard stores.

    Args:
        data: The file as the source has it.
        resize: Pixels of the shorter side at most, then the image is stored as JPEG; None stores `data` untouched.
        quality: Of the JPEG, 1 to 100.
        channels: 3, 1, or, without resize, the bands of a .npy or TIFF.
        max_pixels: Larger images are refused.

    Raises:
        BadImage: It does not decode, or has more than 8 bits.
    """
    raw = decode_raw(data, channels, max_pixels)
    if raw is None:
        return _encode(data, resize, quality, channels, max_pixels)._replace(left_out=left_out(data, max_pixels))
    if raw.values.dtype != np.uint8:
        what = " and ".join(filter(None, (f"{raw.values.shape[2]} bands of {raw.values.dtype}", raw.left_out)))
        raise BadImage(f"{what}, among images of 8 bits: pack them separately")
    return _encode(_to_file(raw.values), resize, quality, channels, max_pixels)._replace(left_out=raw.left_out)


def _to_file(pixels: Array) -> bytes:
    """A PNG where there are 1 or 3 channels, which others can open; else a .npy."""
    stream = io.BytesIO()
    if pixels.shape[2] in (1, 3):
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(stream, "PNG")
    else:
        np.save(stream, np.ascontiguousarray(pixels))
    return stream.getvalue()


def _encode(data: bytes, resize: int | None, quality: int, channels: int, max_pixels: int) -> Stored:
    if resize is None:
        moments = _moments(decode(data, channels, max_pixels))
        return Stored(_suffix(data), data, moments)
    pixels = _shrink(data, resize, channels, max_pixels)
    gray = bool((pixels[..., :1] == pixels).all())
    stored = np.ascontiguousarray(pixels[..., :1]) if gray else pixels
    return Stored("jpg", _to_jpeg(stored, quality), _moments(pixels))


def _suffix(data: bytes) -> str:
    """Of what the bytes are, whatever the file was called; `decode` has accepted them, so it is one of these."""
    starts = {b"\xff\xd8": "jpg", b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp", b"P": "ppm"}
    starts |= {b"II": "tif", b"MM": "tif", b"\x93NUMPY": "npy", b"\0\0\0\x0cjP": "jp2", b"\xff\x4f": "j2k"}
    starts |= {b"\xff\x0a": "jxl", b"\0\0\0\x0cJXL": "jxl"}
    if data[4:8] == b"ftyp":
        return "heic" if data[8:11] in (b"hei", b"hev") else "avif"
    return next((suffix for start, suffix in starts.items() if data.startswith(start)), "dib")  # it begins with a size


def _shrink(data: bytes, short_side: int, channels: int, max_pixels: int) -> Array:
    """Decode with the shorter side at most `short_side` pixels.

    libjpeg's scaling is used down to twice that size only, where it costs no detail, then bicubic with antialias.
    """
    width, height = image_size(data, max_pixels)
    ratio = min(1.0, short_side / min(width, height))
    pixels = decode_scaled(data, 2 * short_side, 2 * short_side, channels, max_pixels)
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    if size == (pixels.shape[1], pixels.shape[0]):
        return pixels
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(size[1], size[0], channels)


def _to_jpeg(pixels: Array, quality: int) -> bytes:
    if pixels.shape[2] == 1:
        return simplejpeg.encode_jpeg(pixels, quality, "GRAY", "Gray")
    return simplejpeg.encode_jpeg(pixels, quality, "RGB", "420")


def _moments(pixels: Array) -> Moments:
    """Average over a grid of 128 to 256 pixels a side, enough for a mean; integers until the end."""
    step = max(1, math.isqrt(pixels.shape[0] * pixels.shape[1]) // _PIXELS_A_SIDE)
    grid = pixels[::step, ::step]
    # Counting values is six times as fast as summing over the first axis of an array [n 3].
    counts = np.stack([np.bincount(grid[..., c].ravel(), minlength=256) for c in range(grid.shape[2])])
    size = grid.shape[0] * grid.shape[1]
    return Moments(counts @ _VALUES / (size * 255), counts @ _VALUES**2 / (size * 255**2))
