"""Mean and standard deviation of the channels of packed images: of all, as `mae-kit shard` leaves them next to the
shards, or of a sample.
"""

import logging
from contextlib import suppress
from typing import Annotated, Any, TypedDict

import numpy as np

from mae_kit.data.decode import decode_scaled
from mae_kit.data.index.index import Index
from mae_kit.data.remote.filesystem import NotThere
from mae_kit.data.remote.store import fetch_beside
from mae_kit.errors import BadImage
from mae_kit.files.json_file import read_json

log = logging.getLogger(__name__)

FILE = "stats.json"
Statistics = tuple[list[float], list[float]]
"""Mean and standard deviation of each channel, in [0, 1]."""

IMAGENET: Statistics = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
DIGITS = 4
SAMPLE = 200  # images, where nobody has measured all
ENOUGH = 128  # pixels of its height and width, to which a larger JPEG may be reduced
FAR, WIDE = 0.5, 1.5  # standard deviations between means, and ratio of standard deviations, that are reported


class _Levels(TypedDict, total=False):
    scale: dict[str, list[float]]


class _Stats(_Levels):
    mean: list[Annotated[float, (0, 1)]]
    std: list[Annotated[float, (0, 1)]]


def channel_statistics(index: Index) -> Statistics | None:
    """Read the statistics of the training images; None where nobody has measured them.

    A channel that is the same everywhere is given the standard deviation 1.

    Raises:
        UserError: `stats.json` is damaged, or the server of remote shards cannot be reached.
    """
    stats = _stats(index)
    return _rounded(stats["mean"], stats["std"]) if stats else None


def sampled_statistics(index: Index) -> Statistics | None:
    """Measure the statistics of `SAMPLE` images in RGB, evenly chosen; None where shards are remote or none decodes."""
    means, squares = [], []
    for row in np.linspace(0, len(index) - 1, min(SAMPLE, len(index))).astype(int) if index.store is None else ():
        with suppress(BadImage):
            image = decode_scaled(index.read(int(row)), ENOUGH, ENOUGH, 3) / 255
            means.append(image.mean(axis=(0, 1)))
            squares.append(np.square(image).mean(axis=(0, 1)))
    if not means:
        return None
    mean = np.mean(means, axis=0)
    std = np.sqrt(np.maximum(np.mean(squares, axis=0) - mean**2, 0))
    return _rounded(mean.tolist(), std.tolist())


def _rounded(mean: list[float], std: list[float]) -> Statistics:
    return [round(value, DIGITS) for value in mean], [round(value, DIGITS) or 1.0 for value in std]


def packed_scale(index: Index) -> dict[str, list[float]]:
    """The values that became 0 and 255 where images of more than 8 bits were packed, by kind of number; else empty.

    Raises:
        UserError: `stats.json` is damaged.
    """
    return (_stats(index) or {}).get("scale", {})


def _stats(index: Index) -> dict[str, Any] | None:
    try:
        file = fetch_beside(index.store.url, FILE, index.store.cache) if index.store else index.folder / FILE
    except NotThere:
        return None
    if not file.is_file():
        return None
    return read_json(file, "stats.damaged", "remove it, or pack the images again with `mae-kit shard`", _Stats)


def choose_statistics(mean: list[float] | None, std: list[float] | None, index: Index) -> Statistics:
    """Take what is given, else the statistics of the data or of a sample, else ImageNet's; log where they come from.

    Args:
        mean: Of each channel, in [0, 1]; None to choose.
        std: Of each channel; None to choose.
        index: The training images.
    """
    if mean and std:
        warn_of_mismatch((mean, std), index, "data.mean and data.std are given")
        return mean, std
    source = "the shards"
    chosen = channel_statistics(index)
    if chosen is None:
        source = f"a sample of the images, for want of a {FILE} next to the shards"
        chosen = sampled_statistics(index)
    if chosen is None:
        source, chosen = f"ImageNet, for want of a {FILE} next to the shards", IMAGENET
    log.info(f"images are normalized with the channel mean {chosen[0]} and std {chosen[1]} of {source}")
    return list(mean or chosen[0]), list(std or chosen[1])


def warn_of_mismatch(used: Statistics, index: Index, what: str) -> bool:
    """Warn where images are normalized with statistics far from their own.

    Args:
        used: To normalize.
        index: The images.
        what: Who says so.

    Returns:
        Whether a channel's means are more than half a standard deviation apart, or its standard deviations differ by a
        factor of more than 1.5.
    """
    own = channel_statistics(index) or sampled_statistics(index)
    if own is None or {*map(len, used)} != {len(own[0])}:
        return False
    channels = list(zip(*used, *own, strict=True))
    far = any(abs(m - mean) > FAR * std or not 1 / WIDE < s / std < WIDE for m, s, mean, std in channels)
    if far:
        log.warning(f"{what}: mean {used[0]}, std {used[1]}; the images have mean {own[0]}, std {own[1]}")
    return far
