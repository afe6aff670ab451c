"""The batch that travels from a loader worker to the device."""

from typing import NamedTuple

from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor


class Batch(NamedTuple):
    """What a loader worker makes and the device receives; one a step and rank.

    Attributes:
        images: [b c h w], cropped to one size, not normalized: uint8, or fp32 values from 0 to 255 of images of more
            than 8 bits.
        labels: int64 [b]; -1 where the sample has none. Of a multi-label set bool [b k], True for each class it has. Of
            masks uint8 [b h w], the class of each pixel, 255 where it is ignored. Of
            boxes float32 [b m 6]: left, top, right and bottom edge in pixels, class, and 1 for a crowd; -1 where there
            is none.
        seeds: int64 [b]; the random number of (seed, epoch, sample): flips and masks are functions of it.
        ids: int64 [b]; rows of the index, of the samples that were shown.
        shown: int64 [b]; seeds of these samples: `seeds`, but where a sample that does not decode was replaced.
        bad: JSON lines of the samples that did not decode and were replaced, usually none.
        sizes: int64 [b 2]; height and width of each image, where images of several sizes are padded to one.
    """

    images: UInt8[Tensor, "b c h w"] | Float[Tensor, "b c h w"]
    labels: Int64[Tensor, " b"] | Bool[Tensor, "b k"] | UInt8[Tensor, "b h w"] | Float32[Tensor, "b m 6"]
    seeds: Int64[Tensor, " b"]
    ids: Int64[Tensor, " b"]
    shown: Int64[Tensor, " b"]
    bad: list[str]
    sizes: Int64[Tensor, "b 2"] | None = None
