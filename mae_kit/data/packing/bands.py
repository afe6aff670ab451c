"""Statistics of the bands of images of more than 8 bits, and the scale that follows from them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Num

from mae_kit.data.scale import Method, Scale, missing
from mae_kit.errors import UserError

PERCENT = 0.1, 99.9
SATURATED = 0.01  # fraction of values at the end of their range that is reported
_QUANTILES = (np.arange(1000) + 0.5) / 1000
_SAMPLE = 1 << 18  # values of a band that the quantiles of a shard are taken from
_FEWEST, _MOST = 64, 1 << 16  # of them from one image


class BandStatistics(NamedTuple):
    """Of each band, over the training images; pixels without data are left out, else every image counts equally.

    Attributes:
        mean: Of the values.
        std: Of the values.
        percentile_low: 0.1 percentile, of the values without one that is far apart from all others.
        percentile_high: 99.9 percentile, likewise.
        smallest: Of all values.
        largest: Of all values.
        nodata: Fraction of pixels without data, 0 to 1.
        saturated: Fraction of values at the largest of their kind of integer, 0 to 1.
    """

    mean: list[float]
    std: list[float]
    percentile_low: list[float]
    percentile_high: list[float]
    smallest: list[float]
    largest: list[float]
    nodata: list[float]
    saturated: list[float]


class BandSums:
    """What is known of the bands of a shard.

    Args:
        bands: Their number.
        images: About as many as the shard holds; the more, the fewer values of each are sampled.
    """

    def __init__(self, bands: int, images: int):
        self.images = 0
        self.sums = np.zeros((4, bands))  # of weights, of mean and square times weight, of saturated values
        self.ends = np.stack([np.full(bands, np.inf), np.full(bands, -np.inf)])
        self.each = min(max(_SAMPLE // max(images, 1), _FEWEST), _MOST)
        self.samples: list[list[np.ndarray]] = [[] for _ in range(bands)]

    def add(self, values: Num[np.ndarray, "h w c"], nodata: float | None) -> None:
        pixels = values.reshape(-1, values.shape[2])
        top = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else np.inf
        for band in range(pixels.shape[1]):
            column = pixels[:, band]
            valid = column[~missing(column, nodata)]
            if not len(valid):
                continue
            exact, weight = valid.astype(np.float64), len(valid) / len(column)
            moments = 1, exact.mean(), np.square(exact).mean(), (valid == top).mean()
            self.sums[:, band] += weight * np.array(moments)
            self.ends[:, band] = min(self.ends[0, band], valid.min()), max(self.ends[1, band], valid.max())
            step = max(1, len(valid) // self.each)
            self.samples[band].append(valid[self.images * 7919 % step :: step].astype(np.float32))
        self.images += 1

    def record(self) -> dict[str, Any]:
        """As JSON."""
        quantiles = [np.quantile(np.concatenate(part), _QUANTILES) if part else [] for part in self.samples]
        return {
            "images": self.images,
            "sums": self.sums.tolist(),
            "ends": np.nan_to_num(self.ends, posinf=0, neginf=0).tolist(),
            "quantiles": [np.asarray(each, np.float64).tolist() for each in quantiles],
        }


class Distribution(NamedTuple):
    """Values of a band, ascending, and the weight of each."""

    values: Float[np.ndarray, " q"]
    weights: Float[np.ndarray, " q"]

    def percentile(self, percent: float) -> float:
        places = np.cumsum(self.weights) - self.weights / 2
        return float(np.interp(percent / 100 * self.weights.sum(), places, self.values))

    def typical(self) -> "Distribution":
        """Without a smallest or largest value that is far apart from all others, as fill values and markers are."""
        kept = self
        for end in (self.values[0], self.values[-1]):
            rest = kept.values[kept.values != end]
            if len(rest) > 1 and np.abs(end - rest).min() > 2 * (rest[-1] - rest[0]) > 0:
                kept = Distribution(rest, kept.weights[kept.values != end])
        return kept

    def moments(self, low: float, high: float) -> tuple[float, float]:
        """Mean and standard deviation on a scale, clipped."""
        scaled = ((self.values - low) / (high - low)).clip(0, 1)
        mean = float(np.average(scaled, weights=self.weights))
        return mean, float(np.sqrt(np.average(np.square(scaled - mean), weights=self.weights)))


def band_statistics(records: Sequence[dict[str, Any]]) -> tuple[BandStatistics, list[Distribution]]:
    """Put together what shards tell."""
    sums = np.sum([record["sums"] for record in records], axis=0)
    weights = np.maximum(sums[0], 1e-9)
    mean, square, saturated = sums[1:] / weights
    images = sum(record["images"] for record in records)
    spreads = [_distribution(records, band) for band in range(sums.shape[1])]
    seen = [[record["ends"] for record in records if record["sums"][0][band]] for band in range(sums.shape[1])]
    low, high = ([[ends[i][band] for ends in seen[band]] for band in range(sums.shape[1])] for i in (0, 1))
    ends = ([spread.typical().percentile(percent) for spread in spreads] for percent in PERCENT)
    found = BandStatistics(
        mean.tolist(),
        np.sqrt(np.maximum(square - mean**2, 0)).tolist(),
        next(ends),
        next(ends),
        [min(ends, default=0.0) for ends in low],
        [max(ends, default=0.0) for ends in high],
        (1 - sums[0] / max(images, 1)).clip(0, 1).tolist(),
        saturated.tolist(),
    )
    return found, spreads


def _distribution(records: Sequence[dict[str, Any]], band: int) -> Distribution:
    parts = [(record["quantiles"][band], record["sums"][0][band]) for record in records if record["quantiles"][band]]
    if not parts:
        return Distribution(np.zeros(1), np.ones(1))
    values = np.concatenate([values for values, _ in parts])
    weights = np.concatenate([np.full(len(values), weight / len(values)) for values, weight in parts])
    order = np.argsort(values, kind="stable")
    return Distribution(values[order], weights[order])


def find_scale(found: BandStatistics, method: Method, ends: tuple[float, float] | None, **kept: Any) -> Scale:
    """Choose the values that become 0 and 1; a band that is the same everywhere becomes 0.

    Args:
        found: Of the training images.
        method: As in `Scale`.
        ends: Of all bands, where the user gives them.
        kept: `kind`, `nodata`, `chosen` and `names`.

    Raises:
        UserError: `shard.scale.none`: values that are kept as they are do not lie in 0 to 1.
    """
    if method == "none" and (min(found.smallest) < 0 or max(found.largest) > 1):
        low, high = min(found.smallest), max(found.largest)
        what = f"values from {low:,.6g} to {high:,.6g} are outside 0 to 1, the range of model input"
        raise UserError("shard.scale.none", what, "leave out --scale, or give --scale range")
    choices = [zip(found.smallest, found.largest, strict=True)]
    if method == "percentile":
        choices.insert(0, zip(found.percentile_low, found.percentile_high, strict=True))
    elif method != "range":
        choices.insert(0, zip(*([end] * len(found.mean) for end in ends or (0.0, 1.0)), strict=True))
    bands = [next(filter(_ascends, pairs), (pairs[0][0], pairs[0][0] + 1)) for pairs in zip(*choices, strict=True)]
    low, high = map(list, zip(*bands, strict=True))
    return Scale(method=method, low=low, high=high, fill=found.mean, **kept)


def _ascends(pair: tuple[float, float]) -> bool:
    return pair[0] < pair[1]


def faults(found: BandStatistics) -> list[str]:
    """Lines on bands that hold nothing, one value, or many at the end of their range."""
    lines = []
    columns = found.smallest, found.largest, found.nodata, found.saturated
    for number, (smallest, largest, nodata, saturated) in enumerate(zip(*columns, strict=True), 1):
        if nodata == 1:
            lines.append(f"band {number} holds no data in any training image")
        elif smallest == largest:
            lines.append(f"band {number} is {smallest:,.6g} everywhere")
        elif saturated > SATURATED:
            lines.append(f"band {number} is saturated: {saturated:.1%} of its values are {largest:,.6g}")
    return lines
