"""One measure over several seeds: its mean, and how far that may be off."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mae_kit.errors import UserError
from mae_kit.evaluation.bootstrap import COVERAGE


class SeedScore(NamedTuple):
    """Mean over the seeds, its 95% interval by Student's t (None for one seed), and the value of each seed."""

    mean: float
    low: float | None
    high: float | None
    seeds: list[float]


def over_seeds(values: list[float]) -> SeedScore:
    """Student's t, since the spread is estimated from the same few seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return SeedScore(mean, None, None, values)
    from scipy import stats

    half = float(stats.t.ppf((1 + COVERAGE) / 2, len(values) - 1) * stats.sem(values))
    return SeedScore(mean, mean - half, mean + half, values)


def with_interval(score: Mapping[str, Any], sign: str = "") -> str:
    """Format a `SeedScore`'s dictionary of fractions in percent: "70.0 [64.3, 75.7]"; `sign` "+" for differences."""
    mean = f"{100 * score['mean']:{sign}.1f}"
    if score["low"] is None:
        return mean
    return f"{mean} [{100 * score['low']:{sign}.1f}, {100 * score['high']:{sign}.1f}]"


def need_scipy() -> None:
    """For intervals.

    Raises:
        UserError: It is not installed.
    """
    try:
        import scipy.stats  # noqa: F401
    except ImportError:
        raise UserError(
            "packages.scipy", "intervals over seeds need scipy", 'install it with pip install "mae_kit[demo]"'
        ) from None
