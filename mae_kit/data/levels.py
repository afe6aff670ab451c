"""Which values of images of more than 8 bits become 0 and 255: one scale for a dataset, and for the models of it."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mae_kit.data.decode import Array, Raw, decode, decode_raw, fit_bands
from mae_kit.errors import BadImage

ANY = "*"  # stands for every kind of number, where the user gives the scale


class Levels(NamedTuple):
    """The values that become 0 and 255."""

    black: float
    white: float

    @property
    def span(self) -> float:
        return self.white - self.black

    @property
    def is_whole_16_bits(self) -> bool:
        """Whether decoding keeps the upper 8 of 16 bits by itself."""
        return (self.black, self.white) == (0, 0xFFFF)


Scale = Mapping[str, Levels]
"""The levels of each kind of number in a dataset, by numpy's name of it."""


def levels_of(scale: Scale, dtype: np.dtype) -> Levels | None:
    return scale.get(dtype.name) or scale.get(ANY)


def to_8_bits(raw: Raw, levels: Levels) -> np.ndarray:
    """Scale values to uint8 [h w c]; those beyond the levels are clipped, pixels without data become 0.

    Raises:
        BadImage: Values that are not finite.
    """
    values = raw.values.astype(np.float64)
    missing = np.zeros(values.shape, bool) if raw.nodata is None else values == raw.nodata
    if not (np.isfinite(values) | missing).all():
        raise BadImage("pixels that are not finite")
    fractions = np.where(missing, 0, (values - levels.black) / levels.span)
    return np.rint(255 * fractions.clip(0, 1)).astype(np.uint8)


def decode_on_scale(data: bytes, channels: int, scale: Scale) -> Array:
    """Decode like `decode`, and images of more than 8 bits as `mae-kit shard` has packed those of a dataset.

    Args:
        data: The whole file.
        channels: As in `decode`.
        scale: Of the dataset; where it says nothing of a kind of number the upper 8 of 16 bits count.

    Raises:
        BadImage: The bytes do not decode.
    """
    raw = decode_raw(data, channels) if scale else None
    levels = levels_of(scale, raw.values.dtype) if raw is not None and raw.values.dtype != np.uint8 else None
    return decode(data, channels) if raw is None or levels is None else fit_bands(to_8_bits(raw, levels), channels)
