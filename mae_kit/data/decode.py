"""The one doorway from bytes to pixels: uint8 [h w c], upright, or `BadImage` with the reason.

simplejpeg in its strict mode reads JPEGs, because Pillow silently accepts garbage inside the scan; tifffile reads every
TIFF beyond plain 8 bits, and imagecodecs JPEG XL; Pillow reads the rest, from a fixed list of formats. The size in the
header is held against a cap first.
"""

import ctypes
import importlib
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
from jaxtyping import Num, UInt8
from PIL import Image, ImageFile, UnidentifiedImageError, _imaging

from mae_kit.data import jpeg
from mae_kit.data.jxl import is_jxl, jxl_frames, jxl_header, read_jxl
from mae_kit.data.orientation import TAG, UPRIGHT, jpeg_orientation, upright
from mae_kit.data.tiff import is_cut, is_tiff, read_tiff, tiff_orientation, tiff_pages, tiff_size
from mae_kit.data.volumes import array_header, is_volume, open_volume
from mae_kit.errors import BadImage

Array = UInt8[np.ndarray, "h w c"]

MAX_PIXELS = 64_000_000
IGNORED = 255  # value of the pixels of a mask that have no class
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000")
IMAGE_SUFFIXES = frozenset(("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff"))
IMAGE_SUFFIXES |= {"ppm", "pgm", "pbm", "pnm", "npy", "avif", "jp2", "j2k", "j2c", "jpf", "jpx", "jxl", "heic", "heif"}
OTHER_IMAGES = frozenset(("svg", "psd", "exr", "hdr", "tga", "ico", "dcm", "raw", "dng", "cr2"))
OTHER_IMAGES |= {"cr3", "nef", "arw", "orf", "rw2", "jpg.gz", "jpeg.gz", "png.gz", "tif.gz"}
"""Suffixes of images that are not read; a member called so is reported, not taken for something else."""

_ALWAYS_8_BITS = (jpeg.START, b"GIF8", b"RIFF", b"BM")
_NUMPY, _GIT_LFS, _PNG = b"\x93NUMPY", b"version https://git-lfs", b"\x89PNG"
_DEEP_PNG_PARTS = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}  # Pillow's names of: upper bytes, lower bytes
_HEIC = (b"ftyphei", b"ftyphev", b"ftypmif1", b"ftypmsf1")  # behind the first four bytes
_OTHER_KINDS = {
    b"\x1f\x8b": "a gzip file",
    b"%PDF": "a PDF",
    b"<svg": "SVG",
    b"8BPS": "a Photoshop file",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
}
_COLORS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}  # TIFF's color spaces that Pillow reads -> bands
_PNG_GRAY, _PNG_PALETTE = 0, 3  # color types
_warnings = threading.RLock()


class Raw(NamedTuple):
    """An image that is more than 8 bits of gray or RGB.

    Attributes:
        values: [h w c] of the file's own kind of number, upright, without alpha.
        nodata: The value that marks pixels without data; None without one.
        left_out: What of the file is not among the values; empty where all is.
        names: Of the bands; none where the file does not name them.
    """

    values: Num[np.ndarray, "h w c"]
    nodata: float | None = None
    left_out: str = ""
    names: tuple[str, ...] = ()


def _hush_decoders() -> None:
    """Pillow and tifffile log, and libtiff writes to stderr, a line for each damaged tag; `BadImage` has the reason."""
    for library in ("PIL", "tifffile", "pydicom", "nibabel"):
        logging.getLogger(library).addHandler(logging.NullHandler())
    library = ctypes.CDLL(_imaging.__file__)
    for setter in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        if hasattr(library, setter):  # where Pillow is linked with it statically there is no such door
            getattr(library, setter)(None)


_hush_decoders()


def decode(data: bytes, channels: int = 3, max_pixels: int = MAX_PIXELS, page: int = 0) -> Array:
    """Decode one image, upright.

    Args:
        data: The whole file: JPEG, PNG, WebP, GIF, AVIF, JPEG XL, HEIC (first frame), BMP, TIFF (first page), PPM,
            JPEG 2000, or a uint8 .npy [h w c].
        channels: 3 for RGB and 1 for gray, whatever the file holds (alpha is dropped); any other number from .npy and
            TIFF alone.
        max_pixels: Refuse images whose header claims more, before anything of that size is allocated.
        page: Frame of an animation.

    Returns:
        uint8 [h w channels], 0..255. Of 16 bits the upper 8, of floats in 0..1 that times 255; other numbers have no
        fixed scale and are refused.

    Raises:
        BadImage: The bytes do not decode; the message is a short reason.
    """
    return decode_scaled(data, 0, 0, channels, max_pixels, page)


def decode_scaled(
    data: bytes, min_height: int, min_width: int, channels: int = 3, max_pixels: int = MAX_PIXELS, page: int = 0
) -> Array:
    """Decode like `decode`; a JPEG may come scaled down by k/8, to no less than `min_height` x `min_width` (upright).

    Zero means unscaled. libjpeg scales inside the inverse DCT, which is what makes a crop of a large photo cheap.
    """
    with _only_bad_image(data):
        if data.startswith(jpeg.START) and channels in (1, 3):
            return _decode_jpeg(data, channels, max_pixels, min_height, min_width)
        if data.startswith(_NUMPY):
            return _decode_numpy(data, channels, max_pixels)
        if is_tiff(data) and not (channels in (1, 3) and _is_plain_tiff(data, max_pixels)):
            return fit_bands(_absolute(_read_tiff(data, channels, max_pixels).values), channels)
        if channels not in (1, 3):
            raise BadImage(f"{channels} channels are read from .npy and TIFF alone, alpha is none")
        if is_jxl(data):
            return fit_bands(_absolute(_read_jxl(data, max_pixels, page)), channels)
        return _decode_pillow(data, channels, max_pixels, page)


def decode_raw(data: bytes, channels: int = 3, max_pixels: int = MAX_PIXELS, page: int = 0) -> Raw | None:
    """Read the values of an image of more than 8 bits, of signed numbers or floats, or of other than 1 or 3 bands.

    Args:
        data: The whole file.
        channels: As in `decode`; 0 for all bands.
        max_pixels: As in `decode`.
        page: Of a TIFF, DICOM, NIfTI, .npz or animation.

    Returns:
        None for an ordinary image, which `decode` reads without loss.

    Raises:
        BadImage: The bytes do not decode.
    """
    with _only_bad_image(data):
        if data.startswith(_ALWAYS_8_BITS) or (data.startswith(_PNG) and data[24:25] != b"\x10"):
            return None
        if is_volume(data):
            return _read_volume(data, max_pixels, page)
        if data.startswith(_NUMPY):
            values = _deep_array(data, max_pixels)
            return None if values is None else Raw(values)
        if is_tiff(data):
            plain = channels in (1, 3) and not page and _is_plain_tiff(data, max_pixels)
            return None if plain else _read_tiff(data, channels, max_pixels, page)
        if is_jxl(data):
            values = _read_jxl(data, max_pixels, page)
            return None if values.dtype == np.uint8 else Raw(values, left_out=left_out(data, max_pixels))
        with _open(data, max_pixels) as image:
            deep_colors = data.startswith(_PNG) and image.mode != "I;16"
            if not (deep_colors or _is_deep(image)):
                return None
            _check(*image.size, max_pixels)
            if page:
                raise BadImage("an animation of more than 8 bits, of which the first frame alone is read")
            orientation = _pillow_orientation(image, data)
            values = None if deep_colors else np.asarray(image)[:, :, None]
        turned = upright(_deep_colors(data, max_pixels) if values is None else values, orientation)
        return Raw(turned, left_out=left_out(data, max_pixels))


def count_pages(data: bytes, max_pixels: int = MAX_PIXELS) -> int:
    """Count the pages, frames, slices or arrays of a file; 1 for one image.

    Raises:
        BadImage: The header is damaged.
    """
    if data.startswith((jpeg.START, _NUMPY)):
        return 1
    with _only_bad_image(data), _hushed():
        if is_volume(data):
            return open_volume(data, max_pixels).count
        if is_tiff(data):
            return tiff_pages(data)
        if is_jxl(data):
            return jxl_frames(data)
        with _open(data, max_pixels) as image:
            return getattr(image, "n_frames", 1)


def _read_volume(data: bytes, max_pixels: int, page: int) -> Raw:
    with _hushed():
        volume = open_volume(data, max_pixels)
        lost = volume.count - 1
        return Raw(volume.page(page), None, f"{lost} of {lost + 1} {volume.kind} are left out (--pages)" * (lost > 0))


def left_out(data: bytes, max_pixels: int = MAX_PIXELS) -> str:
    """What `decode` leaves out of an image: frames of an animation, or pages; empty where it is nothing."""
    count, kind = count_pages(data, max_pixels), "pages" if is_tiff(data) else "frames"
    return f"{count - 1} of {count} {kind} are left out, the first is kept (--pages)" if count > 1 else ""


def is_array(data: bytes) -> bool:
    """Whether it is a .npy."""
    return data.startswith(_NUMPY)


def is_dark(values: Num[np.ndarray, "h w c"]) -> bool:
    """Whether 16-bit values use half of what there is or less, so that their upper 8 bits are a dark picture."""
    return values.dtype == np.uint16 and 0 < float(np.percentile(values, 99.5)) < 1 << 15


def image_size(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Read (width, height) of the upright image from the header alone; microseconds for a JPEG.

    Raises:
        BadImage: No image, or one of more than `max_pixels`.
    """
    with _only_bad_image(data):
        width, height = _size(data, max_pixels)
        _check(width, height, max_pixels)
    return width, height


def decode_mask(data: bytes, max_pixels: int = MAX_PIXELS) -> UInt8[np.ndarray, "h w"]:
    """Read a mask, the class of every pixel, from a gray or palette PNG of at most 8 bits; it is not turned upright.

    Raises:
        BadImage: It is no such PNG, or does not decode.
    """
    with _only_bad_image(data), _open(data, max_pixels) as image:
        _check(*image.size, max_pixels)
        bits, color = data[24:26]
        if image.format != "PNG" or color not in (_PNG_GRAY, _PNG_PALETTE) or bits > 8:
            raise BadImage(f"a mask is a gray or palette PNG of 8 bits, not a {image.format} of mode {image.mode}")
        values = np.array(image).astype(np.uint8)
        return values // (255 // (2**bits - 1)) if color == _PNG_GRAY and bits > 1 else values  # Pillow spreads 2 and 4


def orientation_of(data: bytes, max_pixels: int = MAX_PIXELS) -> int:
    """How `decode` turns an image upright: 1 to 8, as `upright` takes it; 1 where it does not.

    Raises:
        BadImage: No image.
    """
    with _only_bad_image(data):
        if data.startswith(jpeg.START):
            return jpeg_orientation(data)
        if is_tiff(data):
            return tiff_orientation(data)
        if data.startswith(_NUMPY):
            return 1
        if is_jxl(data):
            return jxl_header(data).orientation
        with _open(data, max_pixels) as image:
            return _pillow_orientation(image, data)


def _size(data: bytes, max_pixels: int) -> tuple[int, int]:
    if data.startswith(_NUMPY):
        height, width, _ = _numpy_shape(data)
        return width, height
    if is_jxl(data):
        return jxl_header(data)[:2]
    if data.startswith(jpeg.START):
        try:
            return jpeg.jpeg_size(data)
        except jpeg.UnusualError:
            pass
    try:
        with _open(data, max_pixels) as image:
            width, height = image.size
            if image.format == "TIFF" and _is_overview(dict(image.tag_v2)):  # type: ignore[attr-defined]
                return tiff_size(data)
            _check(width, height, max_pixels)  # a PNG with its EXIF block at the end is decoded to find that
            return (height, width) if _pillow_orientation(image, data) >= 5 else (width, height)
    except UnidentifiedImageError:
        if not is_tiff(data):
            raise
        return tiff_size(data)


@contextmanager
def _only_bad_image(data: bytes) -> Iterator[None]:
    """Turn whatever a decoder throws at damaged bytes into `BadImage`; there is no list of what Pillow may raise."""
    try:
        yield
    except BadImage:
        raise
    except UnidentifiedImageError:
        if data[4:12].startswith(_HEIC):
            what = "that is damaged" if _heic() else "which pillow-heif reads: pip install 'mae_kit[heic]'"
            raise BadImage(f"a HEIC image {what}") from None
        start = data[:64].lstrip()
        other = next((kind for magic, kind in _OTHER_KINDS.items() if magic in start), None)
        known = f"not a readable {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image"
        raise BadImage(f"{known} but {other}: convert it to one of these" if other else known) from None
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BadImage(reason[:160]) from None


def _check(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise BadImage(f"an image of {width} x {height} pixels")
    if width * height > max_pixels:
        raise BadImage(f"{width} x {height} pixels, over the cap of {max_pixels:,}")


# Values


def _absolute(values: Num[np.ndarray, "h w c"]) -> Array:
    """To 8 bits where the kind of number has a fixed scale: uint8, 16 unsigned bits, floats in 0..1."""
    if values.dtype == np.uint8:
        return values
    if not np.isfinite(values).all():
        raise BadImage("pixels that are not finite")
    low, high = values.min(), values.max()
    if values.dtype.itemsize >= 2 and values.dtype.kind in "ui" and values.dtype != np.int16:
        if low >= 0 and high <= 0xFFFF:
            return (values >> 8).astype(np.uint8)
    elif values.dtype.kind == "f" and low >= 0 and high <= 1:
        return np.rint(values.astype(np.float64) * 255).astype(np.uint8)
    raise BadImage(f"{values.dtype} values {low:.6g} to {high:.6g} have no fixed scale: `mae-kit shard` finds one")


def fit_bands(pixels: Array, channels: int) -> UInt8[np.ndarray, "h w channels"]:
    """Bands to the channels that are asked for."""
    bands = pixels.shape[2]
    if bands == channels:
        return pixels
    if channels not in (1, 3) or bands not in (1, 3):
        raise BadImage(f"{bands} bands, not {channels}")
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]


# JPEG


def _decode_jpeg(data: bytes, channels: int, max_pixels: int, min_height: int, min_width: int) -> Array:
    try:
        _check(*jpeg.stored_size(data), max_pixels)
        return jpeg.decode_jpeg(data, channels, min_height, min_width)
    except jpeg.UnusualError:
        return _decode_pillow(data, channels, max_pixels)


# TIFF


def _is_plain_tiff(data: bytes, max_pixels: int) -> bool:
    """Whether Pillow reads it right and whole: up to 8 unsigned bits, gray, RGB and the like, with or without alpha.

    Raises:
        BadImage: Strips or tiles are cut, which Pillow accepts.
    """
    try:
        with _open(data, max_pixels) as image:
            tags: dict[int, tuple] = {key: _tuple(value) for key, value in image.tag_v2.items()}  # type: ignore[attr-defined]
            width, height = image.size
    except UnidentifiedImageError:
        return False
    if _is_overview(tags):
        return False
    bits, samples = tags.get(258, (1,)), tags.get(277, (1,))[0]
    extra = samples - _COLORS.get(tags.get(262, (1,))[0], samples + 1)
    alpha = tags.get(338, ()) if extra else ()
    if max(bits) > 8 or set(tags.get(339, (1,))) - {1, 4} or extra != sum(kind in (1, 2) for kind in alpha):
        return False
    counts, offsets = (tags.get(279, tags.get(325, ())), tags.get(273, tags.get(324, ())))
    if is_cut(tags.get(259, (1,))[0], counts, offsets, width * height * samples * bits[0] // 8, len(data)):
        raise BadImage("a TIFF with strips or tiles that are cut")
    return True


def _is_overview(tags: dict) -> bool:
    """Whether the first page is a small copy or a mask of another one, which Pillow would take for the image."""
    return bool(_tuple(tags.get(254, 0))[0] & 5)


def _tuple(value: object) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def _read_tiff(data: bytes, channels: int, max_pixels: int, page: int = 0) -> Raw:
    found = read_tiff(data, channels, max_pixels, page)
    _check(found.values.shape[1], found.values.shape[0], max_pixels)
    bands, kept = found.values.shape[2], found.values.shape[2]
    if channels in (1, 3) and found.beyond:
        kept = bands - found.beyond
    lost = [f"band {bands} is left out (--channels {bands} keeps it)"] * (kept < bands)
    if found.pages > 1 and channels != found.pages:
        lost.append(f"{found.pages - 1} of {found.pages} pages are left out (--pages stack or split keeps them)")
    return Raw(found.values[..., :kept], found.nodata, ", ".join(lost), found.names[:kept])


# JPEG XL


def _read_jxl(data: bytes, max_pixels: int, page: int) -> Num[np.ndarray, "h w c"]:
    header = jxl_header(data)
    _check(header.width, header.height, max_pixels)
    return read_jxl(data, page)


# Everything else


@contextmanager
def _hushed() -> Iterator[None]:
    """Without warnings, which are no faults of the pixels."""
    # Filters of `warnings` are global: without the lock two threads could restore each other's state.
    with _warnings, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _open(data: bytes, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """Open with Pillow, reading the header only; its warnings, here or while loading, are no faults of the pixels."""
    if data.startswith(_GIT_LFS):
        raise BadImage("a git-LFS pointer, not the image itself")
    if data[8:12] == b"WEBP":
        _check(*_webp_canvas(data), max_pixels)
    formats = (*FORMATS, *_heic()) if data[4:12].startswith(_HEIC) else FORMATS
    with _hushed(), Image.open(io.BytesIO(data), formats=formats) as image:
        yield image


def _heic() -> tuple[str, ...]:
    """Make Pillow read HEIC, where its plugin is installed; AVIF may begin as HEIC does, and needs none."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return ()
    return ("HEIF",)


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """Width and height; Pillow's decoder allocates the canvas as soon as it opens the file. Source: RFC 9649."""
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def _decode_pillow(data: bytes, channels: int, max_pixels: int, page: int = 0) -> Array:
    with _open(data, max_pixels) as image:
        _check(*image.size, max_pixels)
        if page:
            image.seek(page)
        orientation = _pillow_orientation(image, data)
        image.load()
        pixels = (
            fit_bands(_absolute(np.asarray(image)[:, :, None]), channels)
            if _is_deep(image)
            else _convert(image, channels)
        )
    return upright(pixels, orientation)


def _deep_colors(data: bytes, max_pixels: int) -> Num[np.ndarray, "h w c"]:
    """Read a PNG of 16-bit colors, or gray with alpha; Pillow hands out upper and lower bytes, not both at once."""
    with _open(data, max_pixels) as image:
        (tile,) = image.tile
        high, low = tile.args, _DEEP_PNG_PARTS.get(tile.args)  # type: ignore[call-overload]
        if low is None:  # gray with alpha: its four bytes a pixel are read as if they were colors
            image._mode, high, low = "RGBA", "RGBA", ""
        image.tile = [tile._replace(args=high)]
        upper = np.asarray(image)
    if not low:
        return upper[..., 0:1].astype(np.uint16) << 8 | upper[..., 1:2]
    with _open(data, max_pixels) as image:
        image.tile = [image.tile[0]._replace(args=low)]
        return (upper.astype(np.uint16) << 8 | np.asarray(image))[..., :3]


def _is_deep(image: Image.Image) -> bool:
    """More than 8 bits a value: I;16 and its kin, I and F."""
    return image.mode.startswith("I") or image.mode == "F"


def _pillow_orientation(image: ImageFile.ImageFile, data: bytes) -> int:
    """EXIF or XMP orientation, asked of Pillow only where the file has any: a PNG may keep it behind its pixels."""
    if image.format == "TIFF":
        return 1  # Pillow turns these itself
    has_exif = image.info.keys() & {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
    if not has_exif and not (image.format == "PNG" and b"eXIf" in data):
        return 1
    try:
        value = image.getexif().get(TAG, 1)
    except (SyntaxError, ValueError, KeyError, TypeError, struct.error):
        return 1  # damaged metadata; the pixels may be sound
    return value if value in UPRIGHT else 1


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
    stream = io.BytesIO(data)
    return _Header(*array_header(stream), stream.tell())


def _numpy_image(data: bytes) -> _Header:
    """Of a uint8 [h w c] array."""
    header = _numpy_header(data)
    if header.dtype != np.uint8 or len(header.shape) != 3 or header.fortran:
        what = f"a .npy of {header.dtype} {list(header.shape)}, not of uint8 [h w c] in C order"
        raise BadImage(what + (" (mae-kit shard makes it so)" if _is_deep_array(header) else ""))
    return header


def _numpy_shape(data: bytes) -> tuple[int, ...]:
    """[h w c] of a .npy of 8 bits, or of more."""
    header = _numpy_header(data)
    return (*header.shape, 1)[:3] if _is_deep_array(header) else _numpy_image(data).shape


def _decode_numpy(data: bytes, channels: int, max_pixels: int) -> Array:
    shape, _, _, start = _numpy_image(data)
    _check(shape[1], shape[0], max_pixels)
    if shape[2] != channels:
        hint = f": transpose it to [h w {channels}]" if shape[0] == channels else ""
        raise BadImage(f"a .npy of shape {list(shape)}, not of {channels} channels{hint}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()


def _is_deep_array(header: _Header) -> bool:
    return len(header.shape) in (2, 3) and header.dtype.kind in "uif" and header.dtype != np.uint8


def _deep_array(data: bytes, max_pixels: int) -> Num[np.ndarray, "h w c"] | None:
    header = _numpy_header(data)
    if not _is_deep_array(header):
        if header.dtype == np.uint8:
            return None
        raise BadImage(f"a .npy of {header.dtype} {list(header.shape)}, not of numbers [h w] or [h w c]")
    _check(header.shape[1], header.shape[0], max_pixels)
    if len(data) - header.start != math.prod(header.shape) * header.dtype.itemsize:  # before it is allocated
        raise BadImage("a .npy that is cut")
    values = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return values.reshape(*values.shape, 1) if values.ndim == 2 else values
