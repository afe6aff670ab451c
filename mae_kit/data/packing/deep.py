"""Images of more than 8 bits: what a dataset holds, and each image to the values that a shard stores, as .npy."""

import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Num
from PIL import Image

from mae_kit.data.decode import Raw, decode_raw
from mae_kit.data.packing.encode import Stored
from mae_kit.data.packing.plan import PackSettings
from mae_kit.data.scale import Kind, keep, missing, rounded, select, wanted
from mae_kit.errors import BadImage

ROUNDED = "integers above 16,777,216 are rounded to float32"


class Depth(NamedTuple):
    """What each image of a dataset of more than 8 bits holds.

    Attributes:
        kind: numpy's name of the kind of number.
        bands: Their number.
        nodata: The value of pixels without data; None without one.
        names: Of the bands; empty where the files do not name them.
    """

    kind: Kind
    bands: int
    nodata: float | None
    names: list[str]


def find_depth(images: Iterable[Callable[[], bytes]], settings: PackSettings) -> tuple[int, Depth | None]:
    """Find out what most of some images hold: their channels, and their depth where they have more than 8 bits.

    Args:
        images: Each returns the bytes of a file; those that do not decode are left to whoever packs them.
        settings: Of the job.
    """
    found: Counter[tuple[str, int]] = Counter()
    nodata: Counter[float | None] = Counter()
    names: Counter[tuple[str, ...]] = Counter()
    for read in images:
        try:
            data = read()
            raw = _read(data, settings)
            bands = 3 if raw is None else _as_photo(data, raw, settings)
        except BadImage:
            continue
        found["uint8" if raw is None else raw.values.dtype.name, bands] += 1
        nodata[None if raw is None else raw.nodata] += 1
        names[() if raw is None else raw.names] += 1
    if not found:  # each image has its reason, whatever is expected of it
        return settings.channels or 3, Depth("uint16", settings.channels or 1, None, [])
    photos = {held: count for held, count in found.items() if held[0] == "uint8"}
    deep = {held: count for held, count in found.items() if held not in photos}
    if sum(deep.values()) > sum(photos.values()):
        kind, bands = max(deep, key=lambda held: deep[held])
        named = [each for each, _ in names.most_common() if len(each) == bands]
        return bands, Depth(kind, bands, nodata.most_common(1)[0][0], list(named[0]) if named else [])  # type: ignore[arg-type]
    _, bands = max(photos, key=lambda held: photos[held])
    return settings.channels or max(bands, 3), None


def _as_photo(data: bytes, raw: Raw, settings: PackSettings) -> int:
    """Bands of an image; of one of 8 bits that is a photo and a band beyond (near infrared, say) the photo's."""
    photo = decode_raw(data, 3, settings.max_pixels) if raw.values.dtype == np.uint8 else None
    return (photo or raw).values.shape[2]


def encode_deep(data: bytes, settings: PackSettings, depth: Depth) -> Stored:
    """Make of an image what a shard stores: a .npy [h w c] of the values in the file.

    Args:
        data: The file as the source has it.
        settings: Of the job.
        depth: Of the dataset.

    Raises:
        BadImage: It does not decode, holds other bands or another kind of number, or no data.
    """
    raw = _read(data, settings, depth.names)
    if raw is None:
        raise BadImage(f"8 bits, among images of {depth.kind}: pack them separately")
    values = raw.values
    if (values.dtype.name, values.shape[2]) != (depth.kind, depth.bands):
        what = f"{values.shape[2]} bands of {values.dtype}, among images of {depth.bands} bands of {depth.kind}"
        raise BadImage(f"{what}: pack them separately")
    if raw.nodata not in (None, depth.nodata):
        raise BadImage(f"pixels without data are {raw.nodata:g} here, in others {depth.nodata}: give --nodata")
    if missing(values, depth.nodata).all():
        raise BadImage("no pixel with data")
    if settings.resize is not None:
        values = _shrink(values, settings.resize, depth.nodata)
    stream = io.BytesIO()
    np.save(stream, values)
    return Stored("npy", stream.getvalue(), values=values, left_out=raw.left_out)


def _read(data: bytes, settings: PackSettings, names: Sequence[str] = ()) -> Raw | None:
    """The bands that are wanted of an image, or those of these names; None of an ordinary one of 8 bits."""
    raw = decode_raw(data, settings.channels or 0, settings.max_pixels)
    if raw is None:
        return None
    raw = select(raw, wanted(raw.names, names, settings.bands))
    values, channels = raw.values, settings.channels
    if channels not in (None, values.shape[2]) and values.dtype != np.uint8 and (values.shape[2], channels) != (1, 3):
        hint = f": transpose it to [h w {channels}]" if values.shape[0] == channels else ""
        raise BadImage(f"{values.shape[2]} bands, not {channels}{hint}")
    nodata = raw.nodata if settings.nodata is None else settings.nodata
    nodata = None if nodata != nodata else nodata
    kept = keep(values)
    told = [raw.left_out] * bool(raw.left_out) + [ROUNDED] * rounded(values, kept, nodata)
    return raw._replace(values=kept, nodata=nodata, left_out=", ".join(told))


def _shrink(values: Num[np.ndarray, "h w c"], side: int, nodata: float | None) -> Num[np.ndarray, "h2 w2 c"]:
    """Resize with antialias to a shorter side of at most `side`; what is mostly without data stays so."""
    height, width = values.shape[:2]
    ratio = side / min(height, width)
    if ratio >= 1:
        return values
    size = max(1, round(width * ratio)), max(1, round(height * ratio))

    def resized(band: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(band.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))

    none = missing(values, nodata)
    bands = []
    for band in range(values.shape[2]):
        known = 1.0 - none[..., band]
        share = resized(known) if none[..., band].any() else np.ones(size[::-1], np.float32)
        sums = resized(np.where(none[..., band], 0, values[..., band]))
        empty = np.nan if nodata is None else nodata
        bands.append(np.where(share > 0.5, sums / np.maximum(share, 0.5), empty))
    made = np.stack(bands, axis=2)
    if values.dtype.kind in "ui":
        made = np.rint(made).clip(np.iinfo(values.dtype).min, np.iinfo(values.dtype).max)
    return np.ascontiguousarray(made, dtype=values.dtype)
