"""Crops, at decode: the box is arithmetic, the pixels go through torch's antialiased bicubic."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer, UInt8
from torch import Tensor

from mae_kit.data.scale import Scale

TRIES = 10  # torchvision's, and MAE's with it
DRAWS = 4 * TRIES
ASPECTS = 3 / 4, 4 / 3  # width / height, at least and at most
Array = np.ndarray
Pixels = UInt8[Tensor, "c h w"] | Float[Tensor, "c h w"]


class Box(NamedTuple):
    """Whole pixels: top, left, height, width."""

    top: int
    left: int
    height: int
    width: int


def random_resized_boxes(
    draws: Float[Array, "b draws"], sizes: Integer[Array, "b 2"], scale: tuple[float, float]
) -> list[Box]:
    """RandomResizedCrop's boxes (Inception crop): area uniform in `scale`, width / height log-uniform in `ASPECTS`.

    Args:
        draws: `DRAWS` numbers in [0, 1) for each image.
        sizes: Height and width of each image.
        scale: Smallest and largest fraction of the area.
    """
    fractions, aspects, tops, lefts = draws.reshape(-1, 4, TRIES).swapaxes(0, 1)
    height, width = sizes.astype(np.int64).T[:, :, None]
    areas = (scale[0] + (scale[1] - scale[0]) * fractions) * height * width
    aspect = np.exp(np.log(ASPECTS[0]) + (np.log(ASPECTS[1]) - np.log(ASPECTS[0])) * aspects)
    w, h = np.rint(np.sqrt(areas * aspect)).astype(int), np.rint(np.sqrt(areas / aspect)).astype(int)
    fits = (w > 0) & (h > 0) & (w <= width) & (h <= height)
    top, left = (tops * (height - h + 1)).astype(int), (lefts * (width - w + 1)).astype(int)
    first = fits.argmax(axis=1)
    boxes = np.stack([top, left, h, w], axis=2)[np.arange(len(first)), first].tolist()
    return [
        Box(*box) if any_fits else _central_box(size)
        for box, any_fits, size in zip(boxes, fits.any(axis=1).tolist(), sizes.tolist(), strict=True)
    ]


def _central_box(size: Sequence[int]) -> Box:
    """The largest central box whose aspect lies within `ASPECTS`."""
    height, width = size
    w = max(1, min(width, round(height * ASPECTS[1])))
    h = max(1, min(height, round(width / ASPECTS[0])))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def evaluation_box(size: tuple[int, int], target: tuple[int, int], crop_pct: float, mode: str = "center") -> Box:
    """The central box that resizing to target / crop_pct and cropping the target out of the middle would show.

    MAE evaluates at 224 px with 224/256 (util/datasets.py); one resize of the box replaces resize-then-crop. With mode
    "squash" both sides are resized, each by its own factor, as timm's crop_mode does.
    """
    height, width = size
    zoom = min(height / target[0], width / target[1])
    tall, wide = (height, width) if mode == "squash" else (target[0] * zoom, target[1] * zoom)
    h, w = (min(side, max(1, round(shown * crop_pct))) for side, shown in ((height, tall), (width, wide)))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def reduction(box: Box, target: tuple[int, int]) -> int:
    """How many times smaller an image may be decoded, 1, 2, 4 or 8, so that the box keeps twice the target's sides.

    libjpeg has fast code for halves, quarters and eighths alone, and nothing that is seen at the target's size is lost.
    """
    return next((by for by in (8, 4, 2) if box.height >= 2 * by * target[0] and box.width >= 2 * by * target[1]), 1)


def reduced(box: Box, by: int, size: tuple[int, int]) -> Box:
    """The box in an image decoded `by` times smaller, to its nearest pixel: at most a quarter of the crop's away.

    Args:
        box: Of the whole image.
        by: How many times.
        size: Height and width of the smaller image.
    """
    height, width = (min(side, round(whole / by)) for side, whole in zip(size, (box.height, box.width), strict=True))
    return Box(min(size[0] - height, round(box.top / by)), min(size[1] - width, round(box.left / by)), height, width)


def crop_resize(
    image: Array, box: Box, target: tuple[int, int], mode: str = "bicubic", scale: Scale | None = None
) -> Pixels:
    """Cut the box out of an array [h w c] and resize it, bicubic or bilinear with antialias: [c h w], values 0 to 255.

    uint8 without a scale, else fp32, not rounded.
    """
    cut = image[box.top : box.top + box.height, box.left : box.left + box.width]
    pixels = torch.from_numpy(np.ascontiguousarray(scale.levels(cut) if scale else cut)).permute(2, 0, 1)
    if cut.shape[:2] == target:
        return pixels.contiguous()
    resized = F.interpolate(pixels[None], size=target, mode=mode, antialias=True)[0]
    return resized.clamp_(0, 255) if scale else resized


def whole(image: Array, scale: Scale | None) -> Pixels:
    """An array [h w c] as `crop_resize` returns its crops."""
    return torch.from_numpy(scale.levels(image) if scale else image).permute(2, 0, 1)


def central_crop(
    image: Array,
    target: tuple[int, int],
    crop_pct: float = 1.0,
    mode: str = "center",
    interpolation: str = "bicubic",
    scale: Scale | None = None,
) -> Pixels:
    """Prepare an array [h w c] as it is scored: the `evaluation_box`, resized."""
    return crop_resize(image, evaluation_box(image.shape[:2], target, crop_pct, mode), target, interpolation, scale)
