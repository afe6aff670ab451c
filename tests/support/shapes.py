"""Drawn shapes with their masks: a class is a color, so that whatever moves the one shows in the other."""

from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ["ground", "square", "disc"]
COLORS = np.array([[40, 40, 40], [220, 30, 30], [30, 60, 230]], np.uint8)


def shapes(seed: int, size: tuple[int, int] = (48, 40)) -> tuple[np.ndarray, np.ndarray]:
    """Draw a square and a disc at random places.

    Args:
        seed: Of the places.
        size: Width and height.

    Returns:
        uint8 [h w 3] of `COLORS`, and the mask, uint8 [h w].
    """
    draw = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), np.uint8)
    top, left = draw.integers(0, height - 14), draw.integers(0, width - 14)
    mask[top : top + 14, left : left + 14] = 1
    mask[(y - draw.integers(8, height - 8)) ** 2 + (x - draw.integers(8, width - 8)) ** 2 < 64] = 2
    return COLORS[mask], mask


def write_shapes(folder: Path, train: int = 12, val: int = 4, noise: int = 20) -> Path:
    """Write images/{train,val}/N.png, masks/{train,val}/N.png and classes.txt."""
    for number in range(train + val):
        split = "train" if number < train else "val"
        image, mask = shapes(number)
        blurred = image + np.random.default_rng(number).integers(0, noise + 1, image.shape, np.uint8)
        write_pair(folder, f"{split}/{number}.png", blurred, mask)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return folder


def write_pair(folder: Path, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    for kind, pixels in (("images", image), ("masks", mask)):
        (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / kind / name)
