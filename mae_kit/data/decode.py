"""The one doorway from bytes to pixels: uint8 [h w c], upright, or `BadImage` with the reason.

simplejpeg in its strict mode reads JPEGs, because Pillow silently accepts garbage inside the scan; Pillow reads the
rest, from a fixed list of formats, after the size in the header was held against a cap. What Pillow gets wrong
(16-bit gray saturates to white, float TIFF turns black, EXIF orientation is left to the caller) is put right here.
"""

import ctypes
import io
import logging
import math
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import simplejpeg
from jaxtyping import Num, UInt8
from PIL import Image, ImageFile, UnidentifiedImageError, _imaging

from mae_kit.errors import BadImage

Array = UInt8[np.ndarray, "h w c"]

MAX_PIXELS = 64_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM")
IMAGE_SUFFIXES = frozenset(
    ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "dib", "tif", "tiff", "ppm", "pgm", "pbm", "pnm", "npy")
)

_JPEG, _NUMPY, _GIT_LFS = b"\xff\xd8", b"\x93NUMPY", b"version https://git-lfs"
_ORIENTATION = 0x0112
# EXIF orientation -> (swap rows and columns, step over rows, step over columns), EXIF 2.3 table 4.6.4
_UPRIGHT = {
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}
_pillow_warnings = threading.Lock()


def _hush_decoders() -> None:
    """Pillow logs, and libtiff writes to stderr past Python, a line for each damaged tag; the reason is told anyway."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    library = ctypes.CDLL(_imaging.__file__)
    for setter in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        if hasattr(library, setter):  # where Pillow is linked with it statically there is no such door
            getattr(library, setter)(None)


_hush_decoders()


def decode(data: bytes, channels: int = 3, max_pixels: int = MAX_PIXELS) -> Array:
    """Decode one image, upright.

    Args:
        data: The whole file: JPEG, PNG, WebP, GIF (first frame), BMP, TIFF (first page), PPM, or a uint8 .npy [h w c].
        channels: 3 for RGB and 1 for gray, whatever the file holds (alpha is dropped); any other number only from .npy.
        max_pixels: Refuse images whose header claims more, before anything of that size is allocated.

    Returns:
        uint8 [h w channels], 0..255.

    Raises:
        BadImage: The bytes do not decode; the message is a short reason.
    """
    return decode_scaled(data, 0, 0, channels, max_pixels)


def decode_scaled(
    data: bytes, min_height: int, min_width: int, channels: int = 3, max_pixels: int = MAX_PIXELS
) -> Array:
    """Decode like `decode`; a JPEG may come scaled down by k/8, to no less than `min_height` x `min_width` (upright).

    Zero means unscaled. libjpeg scales inside the inverse DCT, which is what makes a crop of a large photo cheap.
    """
    with _only_bad_image():
        if data.startswith(_NUMPY):
            return _decode_numpy(data, channels, max_pixels)
        if channels not in (1, 3):
            raise BadImage(f"{channels} channels are read from .npy members only")
        if data.startswith(_JPEG):
            return _decode_jpeg(data, channels, max_pixels, min_height, min_width)
        return _decode_pillow(data, channels, max_pixels)


def decode_deep(data: bytes, max_pixels: int = MAX_PIXELS) -> Num[np.ndarray, "h w c"] | None:
    """The values of an image of more than 8 bits as they are, upright: gray PNG, TIFF and PPM, and any .npy [h w c].

    Returns:
        [h w c] of the file's own kind of number; None where it has 8 bits, or is a color image, of which Pillow reads
        no more.

    Raises:
        BadImage: The bytes do not decode.
    """
    with _only_bad_image():
        if data.startswith(_NUMPY):
            return _deep_array(data, max_pixels)
        if data.startswith(_JPEG):
            return None
        with _open(data, max_pixels) as image:
            if not _is_deep(image):
                return None
            _check(*image.size, max_pixels)
            orientation = _pillow_orientation(image, data)
            return _upright(np.asarray(image)[:, :, None], orientation)


def largest_of_16_bits(values: Num[np.ndarray, "h w c"]) -> int | None:
    """The largest value where the upper 8 of 16 bits are kept; None where `decode` stretches values in another way."""
    low, high = values.min(), values.max()
    return int(high) if values.dtype.kind in "ui" and low >= 0 and high <= 0xFFFF else None


def is_dark(largest: int) -> bool:
    """Whether images of 16 bits use half of what there is, or less; all black is no image of fewer bits."""
    return 0 < largest < 1 << 15


def image_size(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Read (width, height) of the upright image from the header alone; microseconds for a JPEG.

    Raises:
        BadImage: No image, or one of more than `max_pixels`.
    """
    with _only_bad_image():
        if data.startswith(_NUMPY):
            (height, width, _), orientation = _numpy_image(data).shape, 1
        elif data.startswith(_JPEG):
            (height, width), orientation = _jpeg_size(data), _jpeg_orientation(data)
        else:
            with _open(data, max_pixels) as image:
                width, height = image.size
                _check(width, height, max_pixels)  # a PNG with its EXIF block at the end is decoded to find that
                orientation = _pillow_orientation(image, data)
        _check(width, height, max_pixels)
    return (height, width) if orientation >= 5 else (width, height)


def cut_short(data: bytes) -> bool:
    """Whether a JPEG holds no end marker at all; found from the back, so a sound file costs next to nothing."""
    return data.startswith(_JPEG) and data.rfind(b"\xff\xd9") < 0


@contextmanager
def _only_bad_image() -> Iterator[None]:
    """Turn whatever a decoder throws at damaged bytes into `BadImage`; there is no list of what Pillow may raise."""
    try:
        yield
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage(f"not a readable {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BadImage(reason[:160]) from None


def _check(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise BadImage(f"an image of {width} x {height} pixels")
    if width * height > max_pixels:
        raise BadImage(f"{width} x {height} pixels, over the cap of {max_pixels:,}")


def _upright(image: Num[np.ndarray, "h w c"], orientation: int) -> Num[np.ndarray, "upright_h upright_w c"]:
    if orientation not in _UPRIGHT:
        return image
    swap, rows, columns = _UPRIGHT[orientation]
    turned = image.swapaxes(0, 1) if swap else image
    return np.ascontiguousarray(turned[::rows, ::columns])


# JPEG


def _unusual(error: ValueError) -> bool:
    """Whether TurboJPEG refuses a JPEG that may be sound (odd chroma sampling, say) rather than a damaged one."""
    return not str(error).startswith(("Corrupt JPEG data", "Premature end"))


def _decode_jpeg(data: bytes, channels: int, max_pixels: int, min_height: int, min_width: int) -> Array:
    orientation = _jpeg_orientation(data)
    if orientation >= 5:
        min_height, min_width = min_width, min_height
    height, width = _jpeg_size(data)
    _check(width, height, max_pixels)
    try:
        space = "GRAY" if channels == 1 else "RGB"
        image = simplejpeg.decode_jpeg(data, space, min_height=min_height, min_width=min_width)
    except ValueError as error:
        if _unusual(error):
            return _decode_pillow(data, channels, max_pixels)
        raise
    return _upright(image, orientation)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Height and width as stored."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        return int(height), int(width)
    except ValueError as error:
        if not _unusual(error):
            raise
    with _open(data, MAX_PIXELS) as image:
        return image.height, image.width


def _jpeg_orientation(data: bytes) -> int:
    start = data.find(b"Exif\0\0", 0, 1 << 16)
    return _exif_orientation(data[start + 6 : start + (1 << 16)]) if start > 0 else 1


def _exif_orientation(tiff: bytes) -> int:
    """Orientation 1..8 in the first directory of an EXIF block; 1 where there is none or the block is damaged."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    try:
        if order is None:
            return 1
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if tag == _ORIENTATION:
                return value if value in _UPRIGHT else 1
    except struct.error:
        pass
    return 1


# Everything else


@contextmanager
def _open(data: bytes, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """Open with Pillow, reading the header only; its warnings, here or while loading, are no faults of the pixels."""
    if data.startswith(_GIT_LFS):
        raise BadImage("a git-LFS pointer, not the image itself")
    if data[8:12] == b"WEBP":
        _check(*_webp_canvas(data), max_pixels)
    # Filters of `warnings` are global: without the lock two threads could restore each other's state.
    with _pillow_warnings, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            yield image


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """Width and height; Pillow's decoder allocates the canvas as soon as it opens the file. Source: RFC 9649."""
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def _decode_pillow(data: bytes, channels: int, max_pixels: int) -> Array:
    with _open(data, max_pixels) as image:
        _check(*image.size, max_pixels)
        orientation = _pillow_orientation(image, data)
        image.load()
        mode = image.mode
        if mode.startswith("I;16"):
            pixels = _repeat((np.asarray(image) >> 8).astype(np.uint8), channels)
        elif mode in ("I", "F"):
            pixels = _repeat(_stretch(np.asarray(image)), channels)
        else:
            pixels = _convert(image, channels)
    return _upright(pixels, orientation)


def _is_deep(image: Image.Image) -> bool:
    """More than 8 bits a value: I;16 and its kin, I and F."""
    return image.mode.startswith("I") or image.mode == "F"


def _pillow_orientation(image: ImageFile.ImageFile, data: bytes) -> int:
    """EXIF orientation; asked of Pillow only where the file has any, because a PNG may keep it behind its pixels."""
    if image.format == "TIFF":
        return 1  # Pillow turns these itself
    has_exif = "exif" in image.info or "Raw profile type exif" in image.info
    if not has_exif and not (image.format == "PNG" and b"eXIf" in data):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except (SyntaxError, ValueError, KeyError, TypeError, struct.error):
        return 1  # damaged metadata; the pixels may be sound
    return value if value in _UPRIGHT else 1


def _stretch(values: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    """Scale 32-bit integers or floats to 0..255: [0, 1] floats x255, 16-bit integers /256, else from min to max."""
    if not np.isfinite(values).all():
        raise BadImage("pixels that are not finite")
    if largest_of_16_bits(values[..., None]) is not None:
        return (values >> 8).astype(np.uint8)
    low, high = values.min(), values.max()
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    span = float(high) - float(low) or 1.0
    return np.rint((values.astype(np.float64) - low) * (255 / span)).astype(np.uint8)


def _repeat(gray: UInt8[np.ndarray, "h w"], channels: int) -> Array:
    return np.repeat(gray[:, :, None], channels, axis=2)


def _convert(image: Image.Image, channels: int) -> Array:
    """RGB or gray without alpha; a palette with transparency goes through RGBA, the only way without a warning."""
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "LAB":  # Pillow knows no way from it but to RGB
        image = image.convert("RGB")
    pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)


# .npy


class _Header(NamedTuple):
    """Of a .npy: what it says of its array, and where the first value lies."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    start: int


def _numpy_header(data: bytes) -> _Header:
    """The header is a literal, nothing is unpickled."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return _Header(*read(stream), stream.tell())


def _numpy_image(data: bytes) -> _Header:
    """Of a uint8 [h w c] array."""
    header = _numpy_header(data)
    if header.dtype != np.uint8 or len(header.shape) != 3 or header.fortran:
        what = f"a .npy of {header.dtype} {list(header.shape)}, not of uint8 [h w c] in C order"
        raise BadImage(what + (" (mae-kit shard --white makes it so)" if _is_deep_array(header) else ""))
    return header


def _decode_numpy(data: bytes, channels: int, max_pixels: int) -> Array:
    shape, _, _, start = _numpy_image(data)
    _check(shape[1], shape[0], max_pixels)
    if shape[2] != channels:
        raise BadImage(f"a .npy of {shape[2]} channels where {channels} are asked for")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()


def _is_deep_array(header: _Header) -> bool:
    return len(header.shape) == 3 and header.dtype.kind in "uif" and header.dtype != np.uint8


def _deep_array(data: bytes, max_pixels: int) -> Num[np.ndarray, "h w c"] | None:
    header = _numpy_header(data)
    if not _is_deep_array(header):
        return None
    _check(header.shape[1], header.shape[0], max_pixels)
    if len(data) - header.start != math.prod(header.shape) * header.dtype.itemsize:  # before it is allocated
        raise BadImage("a .npy that is cut")
    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
