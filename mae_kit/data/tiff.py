"""TIFF by tifffile: every kind of number, any number of bands, and what Pillow reads wrong or not at all.

Pillow scrambles separate planes of 16 bits, does not invert 16-bit grays whose zero is white, wraps signed bytes and
unsigned 32-bit integers, and knows no other layouts of bands than its own.
"""

import html
import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Num
from tifffile import TiffFile, TiffPage

from mae_kit.data.orientation import upright
from mae_kit.errors import BadImage

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION, _DESCRIBED, _NODATA = 274, 42112, 42113
_OF_GDAL = re.compile(r'<Item name="DESCRIPTION" sample="(\d+)"[^>]*>([^<]*)</Item>')
_OF_OME = re.compile(r'<Channel\b[^>]*?\bName="([^"]*)"')
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_UNCOMPRESSED = 1
_MOST_BANDS = 1024
MOST_BYTES = 1 << 30  # of the values of a page
_ALPHA = (1, 2)  # of ExtraSamples; 0 says nothing of what a band is


class Tiff(NamedTuple):
    """The pixels of a TIFF as numbers.

    Attributes:
        values: [h w c], upright, without alpha; of one band a page where all pages were asked for.
        nodata: The value that marks pixels without data (GDAL's tag); None without one.
        pages: Pages of full resolution in the file.
        beyond: Bands behind gray or RGB of which the file does not say what they are, at most one.
        names: Of the bands, as GDAL or OME calls them; none where some have no name, or two the same.
    """

    values: Num[np.ndarray, "h w c"]
    nodata: float | None
    pages: int
    beyond: int
    names: tuple[str, ...]


def is_tiff(data: bytes) -> bool:
    return data[:4] in MAGIC


def read_tiff(data: bytes, channels: int, max_pixels: int, number: int = 0) -> Tiff:
    """Read one page, the first, or all of them as bands where there are as many as `channels`, more than 3.

    Raises:
        BadImage: Over the cap, cut, or of a color space that is not gray, RGB or plain bands.
        Exception: Whatever tifffile raises at damaged bytes.
    """
    with TiffFile(io.BytesIO(data)) as file:
        pages = pages_of(file)
        first = pages[number]
        if first.samplesperpixel > _MOST_BANDS:
            raise BadImage(f"a TIFF of {first.samplesperpixel:,} bands")
        if first.imagewidth * first.imagelength > max_pixels:
            raise BadImage(f"{first.imagewidth} x {first.imagelength} pixels, over the cap of {max_pixels:,}")
        if (
            size := first.imagewidth * first.imagelength * first.samplesperpixel * first.bitspersample // 8
        ) > MOST_BYTES:
            raise BadImage(f"{size:,} bytes of values, over the cap of {MOST_BYTES:,}")
        stacked = len(pages) == channels > 3 and len({(page.shape, page.dtype) for page in pages}) == 1
        values = np.concatenate([_values(page, len(data)) for page in (pages if stacked else [first])], axis=2)
        orientation, nodata = first.tags.get(_ORIENTATION), first.tags.get(_NODATA)
        turned = upright(values, int(orientation.value)) if orientation else values
        bands, colors = turned.shape[2], 3 if first.photometric == _RGB else 1
        beyond = int(bands == colors + 1 and (colors == 3 or bands == 2))
        one = len(pages) > 1 and bands == 1
        names = band_names(first, pages[0], [number] if one else range(bands))
        return Tiff(turned, None if nodata is None else _number(nodata.value), len(pages), beyond, names)


def pages_of(file: TiffFile) -> Sequence[TiffPage]:
    """Pages of full resolution: neither overviews nor masks.

    Raises:
        BadImage: There is none, as where the header names the other order of bytes.
    """
    pages: list[Any] = [file.pages[i] for i in range(min(len(file.pages), 1024))]
    if not pages:
        raise BadImage("a TIFF without a page where its header says: it is damaged, or of the other order of bytes")
    return [page for page in pages if not page.subfiletype & 5] or pages[:1]


def band_names(page: Any, first: Any, channels: Sequence[int]) -> tuple[str, ...]:
    """Read the names of some channels: GDAL's of the samples of a page, or OME's, which the first page has."""
    described = page.tags.get(_DESCRIBED)
    found = {int(place): name for place, name in _OF_GDAL.findall(str(described.value))} if described else {}
    if not found and first.is_ome:
        found = dict(enumerate(_OF_OME.findall(first.description.partition("</Image>")[0])))
    names = tuple(html.unescape(found.get(channel, "")).strip() for channel in channels)
    return names if all(names) and len(set(names)) == len(names) else ()


def describe(names: Sequence[str]) -> tuple[int, str, int, str, bool]:
    """Make the tag in which GDAL stores the names of bands."""
    item = '<Item name="DESCRIPTION" sample="{}" role="description">{}</Item>'
    items = (item.format(place, html.escape(name)) for place, name in enumerate(names))
    return _DESCRIBED, "s", 0, f"<GDALMetadata>{''.join(items)}</GDALMetadata>", True


def tiff_pages(data: bytes) -> int:
    """Count the pages of full resolution."""
    with TiffFile(io.BytesIO(data)) as file:
        return len(pages_of(file))


def tiff_size(data: bytes) -> tuple[int, int]:
    """Read width and height of the upright first page."""
    with TiffFile(io.BytesIO(data)) as file:
        page = pages_of(file)[0]
        width, height = page.imagewidth, page.imagelength
        return (height, width) if _orientation(page) >= 5 else (width, height)


def tiff_orientation(data: bytes) -> int:
    """Read how the first page is turned upright, 1 to 8."""
    with TiffFile(io.BytesIO(data)) as file:
        return _orientation(pages_of(file)[0])


def _orientation(page: Any) -> int:
    tag = page.tags.get(_ORIENTATION)
    return int(tag.value) if tag else 1


def is_cut(compression: int, counts: Sequence[int], offsets: Sequence[int], expected: int, size: int) -> bool:
    """Whether strips or tiles lie outside the file, or hold less than their pixels need.

    Args:
        compression: TIFF's number; of compressed ones the decoder knows best whether they are whole.
        counts: Bytes of each strip; some files claim too much, or say nothing.
        offsets: Where each begins.
        expected: Bytes of all pixels.
        size: Bytes of the file.
    """
    counts = counts or [size] * len(offsets)
    held = [min(count, size - offset) for offset, count in zip(offsets, counts, strict=False)]
    return min(held, default=0) <= 0 or (compression == _UNCOMPRESSED and sum(held) < expected)


def _values(page: Any, size: int) -> Num[np.ndarray, "h w c"]:
    if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) or page.dtype is None:
        raise BadImage(
            f"a TIFF of color space {int(page.photometric)} and {page.bitspersample} bits, which is not read"
        )
    if page.dtype.kind not in "uif":
        raise BadImage(f"a TIFF of {page.dtype} values, which are not read")
    pixel = page.samplesperpixel * page.bitspersample // 8
    if (tile := page.tilewidth * page.tilelength * pixel) > MOST_BYTES:  # each is allocated whole
        raise BadImage(f"tiles of {tile:,} bytes, over the cap of {MOST_BYTES:,}")
    expected = page.imagewidth * page.imagelength * page.samplesperpixel * page.bitspersample // 8
    if is_cut(page.compression, page.databytecounts, page.dataoffsets, expected, size):
        raise BadImage("a TIFF with strips or tiles that are cut")
    values = page.asarray()
    if page.axes not in ("YX", "YXS", "SYX"):
        raise BadImage(f"a TIFF with axes {page.axes}, not an image of bands")
    values = values[..., None] if page.axes == "YX" else np.moveaxis(values, 0, 2) if page.axes == "SYX" else values
    if page.photometric == _WHITE_IS_ZERO:
        values = _inverted(values)
    colors = page.samplesperpixel - len(page.extrasamples)
    kept = [*range(colors), *(colors + i for i, kind in enumerate(page.extrasamples) if kind not in _ALPHA)]
    return np.ascontiguousarray(values[..., kept])


def _inverted(values: np.ndarray) -> np.ndarray:
    return np.iinfo(values.dtype).max - values if values.dtype.kind == "u" else -values


def _number(text: Any) -> float | None:
    try:
        return float(str(text).strip("\0 "))
    except ValueError:
        return None
