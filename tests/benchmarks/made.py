"""Shards of images that are made, where no photos are at hand: nothing is downloaded."""

from pathlib import Path

import numpy as np
from PIL import Image

import mae_kit


def make_photos(folder: Path, count: int, width: int = 500, height: int = 375) -> Path:
    """Write JPEGs of smooth noise, which cost as much to decode as photos do.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True)
    dice = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(dice.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg", quality=90)
    return folder


def make_shards(folder: Path, count: int, width: int = 500, height: int = 375) -> Path:
    """Write such photos, and pack them.

    Returns:
        The folder of the shards.
    """
    mae_kit.shard(str(make_photos(folder / "photos", count, width, height)), folder / "shards")
    return folder / "shards"
