"""Crops, at decode: the box is arithmetic, the pixels go through torch's antialiased bicubic on uint8."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

TRIES = 10  # torchvision's, and MAE's with it
DRAWS = 4 * TRIES
ASPECTS = 3 / 4, 4 / 3  # width / height, at least and at most
Array = np.ndarray


class Box(NamedTuple):
    """Whole pixels: top, left, height, width."""

    top: int
    left: int
    height: int
    width: int


def random_resized_box(draws: Array, size: tuple[int, int], scale: tuple[float, float]) -> Box:
    """RandomResizedCrop's box (Inception crop): area uniform in `scale`, width / height log-uniform in `ASPECTS`.

    Args:
        draws: At least `DRAWS` numbers in [0, 1).
        size: Height and width of the image.
        scale: Smallest and largest fraction of the area.
    """
    height, width = size
    fractions, aspects, tops, lefts = draws[:DRAWS].reshape(4, TRIES)
    areas = (scale[0] + (scale[1] - scale[0]) * fractions) * height * width
    aspect = np.exp(np.log(ASPECTS[0]) + (np.log(ASPECTS[1]) - np.log(ASPECTS[0])) * aspects)
    w, h = np.rint(np.sqrt(areas * aspect)).astype(int), np.rint(np.sqrt(areas / aspect)).astype(int)
    fits = np.flatnonzero((w > 0) & (h > 0) & (w <= width) & (h <= height))
    if not len(fits):
        return _central_box(size)
    i = fits[0]
    return Box(int(tops[i] * (height - h[i] + 1)), int(lefts[i] * (width - w[i] + 1)), int(h[i]), int(w[i]))


def _central_box(size: tuple[int, int]) -> Box:
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


def crop_resize(image: Array, box: Box, target: tuple[int, int], mode: str = "bicubic") -> UInt8[Tensor, "c h w"]:
    """Cut the box out of a uint8 [h w c] array and resize it, bicubic or bilinear with antialias: uint8 [c h w]."""
    cut = image[box.top : box.top + box.height, box.left : box.left + box.width]
    pixels = torch.from_numpy(np.ascontiguousarray(cut)).permute(2, 0, 1)
    if cut.shape[:2] == target:
        return pixels.contiguous()
    return F.interpolate(pixels[None], size=target, mode=mode, antialias=True)[0]


def central_crop(
    image: Array,
    target: tuple[int, int],
    crop_pct: float = 1.0,
    mode: str = "center",
    interpolation: str = "bicubic",
) -> UInt8[Tensor, "c h w"]:
    """Prepare a uint8 [h w c] array as it is scored: the `evaluation_box`, resized."""
    return crop_resize(image, evaluation_box(image.shape[:2], target, crop_pct, mode), target, interpolation)
