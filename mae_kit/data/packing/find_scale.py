"""Find the one scale of a dataset."""

from collections import defaultdict
from collections.abc import Callable, Iterable

import numpy as np

from mae_kit.data.decode import Raw, decode_raw
from mae_kit.data.levels import Levels
from mae_kit.errors import BadImage

_QUANTILES = np.linspace(0, 1, 1025)
_PERCENT = 0.5, 99.5
_MOST_VALUES = 1 << 18


def find_scale(images: Iterable[Callable[[], bytes]], channels: int, max_pixels: int) -> dict[str, Levels]:
    """Find a scale for each kind of number from percentiles over some images of the dataset.

    Unsigned integers count from 0 to the largest value of as many bits as 99.5% of the pixels need, 4,095 for 12 bits;
    other numbers from the 0.5th to the 99.5th percentile. Pixels without data and values far apart from all others, as
    fill values and burnt-in markers are, do not count; every image counts the same.

    Args:
        images: Each returns the bytes of a file; those that do not decode are left to whoever packs them.
        channels: As in `decode_raw`.
        max_pixels: As in `decode_raw`.
    """
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    for read in images:
        try:
            raw = decode_raw(read(), channels, max_pixels)
        except BadImage:
            continue
        if raw is not None and raw.values.dtype != np.uint8:
            values = _typical(raw)
            found[raw.values.dtype.name] += [np.quantile(values, _QUANTILES)] if len(values) else []
    return {name: _levels(np.dtype(name), parts) for name, parts in found.items()}


def _levels(kind: np.dtype, parts: list[np.ndarray]) -> Levels:
    low, high = np.percentile(np.concatenate(parts), _PERCENT).tolist() if parts else (0.0, 0.0)
    if kind.kind == "u":
        bits = max(int(high).bit_length(), 1) if high else 8 * kind.itemsize
        return Levels(0.0, float(2**bits - 1))
    return Levels(low, high if high > low else low + 1)


def _typical(raw: Raw) -> np.ndarray:
    """Values of pixels with data, float64, sorted; at most some hundred thousand of them."""
    values = raw.values.reshape(-1)
    values = values[:: 1 + len(values) // _MOST_VALUES].astype(np.float64)
    values = np.sort(values[np.isfinite(values) & (values != (np.nan if raw.nodata is None else raw.nodata))])
    for end in (values[:1], values[-1:]):
        rest = values[values != end]
        if len(rest) > 1 and abs(end[0] - rest).min() > 2 * (rest[-1] - rest[0]) > 0:
            values = rest
    return values
