"""The legend: what the axis letters mean, and the two records that travel through the kit.

b images in a batch, c channels, h and w pixels, n patches, p pixels a side of a patch, d embedding width, k classes.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor


class Batch(NamedTuple):
    """What a loader worker makes and the device receives; one a step and rank.

    Attributes:
        images: uint8 [b c h w], cropped to one size, not normalized.
        labels: int64 [b]; -1 where the sample has none. Of a multi-label set bool [b k], True for each class it has.
        seeds: int64 [b]; the random number of (seed, epoch, sample): flips and masks are functions of it.
        ids: int64 [b]; rows of the index, of the samples that were shown.
        shown: int64 [b]; seeds of these samples: `seeds`, but where a sample that does not decode was replaced.
        bad: JSON lines of the samples that did not decode and were replaced, usually none.
    """

    images: UInt8[Tensor, "b c h w"]
    labels: Int64[Tensor, " b"] | Bool[Tensor, "b k"]
    seeds: Int64[Tensor, " b"]
    ids: Int64[Tensor, " b"]
    shown: Int64[Tensor, " b"]
    bad: list[str]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move the tensors of a batch."""
    return Batch(*(t.to(device, non_blocking=True) if isinstance(t, Tensor) else t for t in batch))  # type: ignore[arg-type]


class Outcome(NamedTuple):
    """What an objective returns.

    Attributes:
        loss: scalar, fp32.
        logs: scalars to log beside the loss.
        hidden: Bool [b n], True = hidden.
        prediction: [b n p*p*c] in the space of the target.
    """

    loss: Float[Tensor, ""]
    logs: dict[str, Tensor]
    hidden: Bool[Tensor, "b n"]
    prediction: Float[Tensor, "b n q"]
