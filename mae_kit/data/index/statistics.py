"""Mean and standard deviation of the channels of packed images: of all, as `mae-kit shard` leaves them next to the
shards, or of a sample.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from mae_kit.data.decode import decode_scaled
from mae_kit.data.index.index import Index
from mae_kit.data.index.stats_file import FILE, read_stats
from mae_kit.data.scale import Scale
from mae_kit.errors import BadImage, UserError

log = logging.getLogger(__name__)

Statistics = tuple[list[float], list[float]]
"""Mean and standard deviation of each channel, in [0, 1]."""

IMAGENET: Statistics = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
DIGITS, EXACT = 4, 9  # of 8 bits, and of more, where a wide scale may leave little spread
SAMPLE = 200  # images, where nobody has measured all
ENOUGH = 128  # pixels of its height and width, to which a larger JPEG may be reduced
FAR, WIDE = 0.5, 1.5  # standard deviations between means, and ratio of standard deviations, that are reported


def channel_statistics(index: Index) -> Statistics | None:
    """Read the statistics of the training images; None where nobody has measured them.

    A channel that is the same everywhere is given the standard deviation 1.

    Raises:
        UserError: `stats.json` is damaged, or the server of remote shards cannot be reached.
    """
    stats = read_stats(index.folder, index.store)
    return _rounded(stats["mean"], stats["std"], EXACT if stats.get("scale") else DIGITS) if stats else None


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


def _rounded(mean: list[float], std: list[float], digits: int = DIGITS) -> Statistics:
    return [round(value, digits) for value in mean], [round(value, digits) or 1.0 for value in std]


def share_scale(known: Scale | None, *indexes: Index, bands: Sequence[str] = ()) -> None:
    """Have indexes read on one scale: that of the model they are for where it fits them, else that of the first.

    Args:
        known: Of the model.
        indexes: Of its images.
        bands: Names of the model's channels; by default those of its scale.

    Raises:
        UserError: As `check_bands`.
    """
    for index in indexes:
        check_bands(bands or (known.names if known else ()), index.scale, str(index.folder))
    own = indexes[0].scale
    fits = own and known and (known.kind, known.bands) == (own.kind, own.bands)
    for index in indexes:
        if index.scale:
            index.scale = known if fits else own


def check_bands(known: Sequence[str], scale: Scale | None, place: str) -> None:
    """Refuse images whose bands have other names, or another order, than a model's channels.

    Args:
        known: Names of the model's channels; empty where they have none.
        scale: Of the images.
        place: Of the images, for the message.

    Raises:
        UserError: `data.bands`.
    """
    found = scale.names if scale else []
    if known and found and list(known) != found:
        what = f"{place} has the bands {', '.join(found)}, the model takes {', '.join(known)}"
        raise UserError("data.bands", what, f"pack the images with --bands {','.join(known)}")


def fit_channels(statistics: Statistics, channels: int) -> Statistics:
    """Those of one band for each of so many channels that it is repeated to."""
    mean, std = statistics
    return (mean * channels, std * channels) if len(mean) == len(std) == 1 else statistics


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
