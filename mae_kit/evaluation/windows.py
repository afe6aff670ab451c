"""Windows of one size that cover an image of any size."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

WINDOWS = 16  # at a time


def window_logits(
    model: nn.Module, image: Float[Tensor, "1 c h w"], window: tuple[int, int], overlap: float
) -> Float[Tensor, "1 k h w"]:
    """The mean of the logits of windows that cover a normalized image; a smaller image is padded with its mean, 0.

    Args:
        model: Gives every pixel of a window logits.
        image: Of any size.
        window: Height and width.
        overlap: Fraction of a window that the next one covers, too, 0 to 1.
    """
    height, width = image.shape[2:]
    padded = padded_to(image, window)
    places = window_places(padded.shape[2:], window, overlap)
    total: Any = 0
    count = torch.zeros_like(padded[:, :1])
    for some in (places[i : i + WINDOWS] for i in range(0, len(places), WINDOWS)):
        found = model(cut(padded, some, window)).float()
        if not isinstance(total, Tensor):
            total = found.new_zeros(1, found.shape[1], *padded.shape[2:])
        for (y, x), logits in zip(some, found, strict=True):
            total[0, :, y : y + window[0], x : x + window[1]] += logits
            count[:, :, y : y + window[0], x : x + window[1]] += 1
    return (total / count)[:, :, :height, :width]


def padded_to(image: Shaped[Tensor, "b c h w"], window: tuple[int, int], value: float = 0) -> Shaped[Tensor, "b c _ _"]:
    """Pad an image that is smaller than a window, on the right and below."""
    height, width = image.shape[2:]
    return F.pad(image, (0, max(0, window[1] - width), 0, max(0, window[0] - height)), value=value)


def window_places(size: tuple[int, ...], window: tuple[int, int], overlap: float) -> list[tuple[int, int]]:
    """Top and left of windows that cover an image of a size, row by row, evenly spread."""
    rows, columns = (_starts(length, side, overlap) for length, side in zip(size, window, strict=True))
    return [(y, x) for y in rows for x in columns]


def cut(
    image: Shaped[Tensor, "1 c h w"], places: list[tuple[int, int]], window: tuple[int, int]
) -> Shaped[Tensor, "n c _ _"]:
    """The windows at these places."""
    return torch.cat([image[:, :, y : y + window[0], x : x + window[1]] for y, x in places])


def _starts(length: int, window: int, overlap: float) -> list[int]:
    """First pixels of the windows along a side, evenly spread from end to end."""
    steps = int(np.ceil((length - window) / max(1, window * (1 - overlap))))
    return np.linspace(0, length - window, steps + 1).round().astype(int).tolist()
