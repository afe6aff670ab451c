"""How values of more than 8 bits become model input: one scale a band for a dataset, and for the models of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypedDict, get_args

import numpy as np
from jaxtyping import Bool, Float32, Num, UInt8

from mae_kit.data.decode import Array, Raw, decode_raw, decode_scaled
from mae_kit.errors import BadImage
from mae_kit.files.plain_types import mismatch

Kind = Literal["uint16", "int16", "float32"]
Method = Literal["percentile", "range", "none", "given"]
KINDS = get_args(Kind)
MOST_BYTES = 1 << 29  # of the values of an image


class _Content(TypedDict):
    kind: Kind
    method: Method
    low: list[float]
    high: list[float]
    fill: list[float]
    nodata: float | None
    chosen: list[str]
    names: list[str]


@dataclass(frozen=True)
class Scale:
    """The values that become 0 and 1, band by band; what lies beyond is clipped.

    Attributes:
        kind: numpy's name of the kind of number.
        method: Where the two values come from: 0.1 and 99.9 percentile or smallest and largest value of the training
            images, none = 0 and 1 themselves, given = by the user.
        low: Of each band.
        high: Of each band.
        fill: Of each band, the mean, which takes the place of pixels without data.
        nodata: The value of pixels without data; None without one. NaN never is data.
        chosen: Of the bands of a file, counted from 1, or their names, those that were packed, in their order; empty =
            all.
        names: Of the bands; empty where the files did not name them.
    """

    kind: Kind
    method: Method
    low: list[float]
    high: list[float]
    fill: list[float]
    nodata: float | None = None
    chosen: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, content: Any) -> "Scale":
        """Make it of what a file says.

        Raises:
            ValueError: It is no scale.
        """
        if fault := mismatch(content, _Content, "scale"):
            raise ValueError(fault)
        if unknown := content.keys() - cls.__dataclass_fields__.keys():
            raise ValueError(f"scale.{min(unknown)} is unknown")
        made = cls(**content)
        ends = list(zip(made.low, made.high, strict=False))
        if not len(made.low) == len(made.high) == len(made.fill) > 0 or not all(low < high for low, high in ends):
            raise ValueError("scale is not of two ascending values and a fill value for each band")
        return made

    @property
    def bands(self) -> int:
        return len(self.low)

    @cached_property
    def _factor(self) -> Float32[np.ndarray, " c"]:
        return (255 / np.subtract(self.high, self.low)).astype(np.float32)

    def levels(self, values: Num[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h w c"]:
        """Map values to 0..255, as images of 8 bits have, without rounding; in float32."""
        found = values.astype(np.float32)
        if values.dtype.kind == "f" or self.nodata is not None:
            found = np.where(missing(values, self.nodata), _float32(self.fill), found)
        return ((found - _float32(self.low)) * self._factor).clip(0, 255)


def _float32(values: list[float]) -> Float32[np.ndarray, " c"]:
    return np.array(values, np.float32)


def missing(values: Num[np.ndarray, "*shape"], nodata: float | None) -> Bool[np.ndarray, "*shape"]:
    """Where there is no data: NaN, and the value that stands for it."""
    none = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    return none if nodata is None else none | (values == nodata)


def keep(values: Num[np.ndarray, "h w c"]) -> Num[np.ndarray, "h w c"]:
    """Values as a shard stores them: uint8, uint16, int16 and float32 as they are, int8 as int16, others as float32.

    Raises:
        BadImage: Infinite values, or too many bytes.
    """
    if values.nbytes > MOST_BYTES:
        raise BadImage(f"{values.nbytes:,} bytes of values, over the cap of {MOST_BYTES:,}")
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            kept = values.astype(np.float32)
        if np.isinf(kept).any():
            raise BadImage("pixels that are not finite")
        return np.ascontiguousarray(kept)
    kind = "int16" if values.dtype == np.int8 else values.dtype.name
    return np.ascontiguousarray(values, dtype=kind if kind in (*KINDS, "uint8") else "float32")


def rounded(values: Num[np.ndarray, "h w c"], kept: Num[np.ndarray, "h w c"], nodata: float | None) -> bool:
    """Whether `keep` has rounded integers: float32 has 24 binary digits."""
    if values.dtype.kind == "f" or kept.dtype.kind != "f":
        return False
    return bool(((kept.astype(np.float64) != values) & ~missing(values, nodata)).any())


def decode_on_scale(
    data: bytes, channels: int, scale: Scale | None, min_height: int = 0, min_width: int = 0, packed: bool = True
) -> Array | Num[np.ndarray, "h w c"]:
    """Decode like `decode_scaled`; with a scale, values of its kind as they are.

    Args:
        data: The whole file.
        channels: As in `decode`; one band is repeated to three.
        scale: Of the dataset or model; None for 8 bits.
        min_height: Of a JPEG that may come scaled down.
        min_width: Of a JPEG that may come scaled down.
        packed: Whether the data is of a shard, which holds the chosen bands alone.

    Raises:
        BadImage: The bytes do not decode, or to another kind of number or other bands.
    """
    if scale is None:
        return decode_scaled(data, min_height, min_width, channels)
    found = read_values(data)
    values = found.values if packed else select(found, wanted(found.names, scale.names, scale.chosen)).values
    if values.dtype.name != scale.kind:
        raise BadImage(f"{values.dtype} values on a scale of {scale.kind}")
    bands = values.shape[2]
    if bands != scale.bands or channels not in ((1, 3) if bands == 1 else (bands,)):
        raise BadImage(f"{bands} bands, not {scale.bands if bands != scale.bands else channels} channels")
    return values.repeat(channels, axis=2) if channels > bands else values


def wanted(found: Sequence[str], names: Sequence[str], chosen: Sequence[str]) -> Sequence[str]:
    """The bands to take of an image: those of the dataset's names if it has them all, else those that were chosen."""
    return names if names and set(names) <= set(found) else chosen


def select(image: Raw, bands: Sequence[str]) -> Raw:
    """Some of the bands, by their names, or counted from 1; all where none are asked for.

    Raises:
        BadImage: It has no such band.
    """
    if not bands:
        return image
    count = image.values.shape[2]
    places = {str(number + 1): number for number in range(count)} | {name: i for i, name in enumerate(image.names)}
    if lost := [band for band in bands if band not in places]:
        shown = f" ({', '.join(image.names)})" if image.names else ""
        raise BadImage(f"{count} bands{shown}, without band {lost[0]}")
    taken = [places[band] for band in bands]
    names = tuple(image.names[place] for place in taken) if image.names else ()
    return image._replace(values=image.values[..., taken], names=names)


def to_rgb(data: bytes, scale: Scale) -> UInt8[np.ndarray, "h w 3"]:
    """An image of more than 8 bits to look at: its first three bands, or its first as gray.

    Raises:
        BadImage: As `decode_on_scale`.
    """
    levels = scale.levels(decode_on_scale(data, scale.bands, scale))
    shown = levels[..., :3] if levels.shape[2] >= 3 else levels[..., :1].repeat(3, axis=2)
    return np.rint(shown).astype(np.uint8)


def to_gray(data: bytes, side: int, scale: Scale | None) -> UInt8[np.ndarray, "h w"]:
    """An image in gray, the mean of its bands where it has more than 8 bits; no smaller than `side`.

    Raises:
        BadImage: As `decode_on_scale`.
    """
    if scale is None:
        return decode_scaled(data, side, side, channels=1)[..., 0]
    levels = scale.levels(decode_on_scale(data, scale.bands, scale))
    return np.rint(levels.mean(axis=2)).astype(np.uint8)


def read_values(data: bytes) -> Raw:
    """All bands of an image as a shard keeps them, also of one of 8 bits.

    Raises:
        BadImage: The bytes do not decode.
    """
    raw = decode_raw(data, 0)
    return Raw(decode_scaled(data, 0, 0)) if raw is None else raw._replace(values=keep(raw.values))
