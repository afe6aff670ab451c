"""Tiles of 13 bands and X-rays of 12 bits that are made, to try recipes on where there are none: nothing is downloaded.

    python tests/benchmarks/science.py FOLDER --count 800

writes FOLDER/tiles, GeoTIFFs whose bands have about the means and standard deviations of EuroSAT's Sentinel-2 tiles (as
in torchgeo), and FOLDER/xrays, PNGs of 16 bits, both in class folders: which cover prevails, and whether there is a
nodule.
"""

import argparse
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from mae_kit.data.tiff import describe

BANDS = ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12"]
MEAN = np.array([1354, 1118, 1043, 948, 1199, 2000, 2369, 2297, 732, 12, 1819, 1119, 2594])
STD = np.array([246, 333, 395, 594, 566, 861, 1087, 1118, 405, 5, 1003, 761, 1232])
COVERS = ["water", "forest", "field", "town"]
# Of each cover, in standard deviations: little infrared in water, much in forest and field, much red in towns.
SPECTRA = np.array(
    [
        [0.3, 0.2, 0.0, -0.7, -1.2, -1.6, -1.6, -1.6, -1.5, -1.2, -1.3, -1.2, -1.6],
        [-0.9, -0.9, -0.8, -0.7, -0.5, 0.6, 0.8, 0.8, 0.3, 0.4, -0.5, -0.7, 0.8],
        [-0.2, -0.2, 0.4, 0.2, 0.6, 0.9, 0.8, 0.9, 0.8, 0.5, 0.7, 0.5, 0.9],
        [1.1, 1.2, 1.1, 1.3, 1.0, -0.3, -0.4, -0.4, 0.2, 0.1, 1.0, 1.4, -0.4],
    ]
)


def smooth(dice: np.random.Generator, side: int, power: float, count: int) -> np.ndarray:
    """[side side count] of noise whose amplitude falls with the frequency; mean 0, standard deviation 1."""
    spectrum = np.fft.rfft2(dice.normal(size=(side, side, count)), axes=(0, 1))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    falling = spectrum / np.maximum(frequency, 1 / side)[..., None] ** power
    values = np.fft.irfft2(falling, s=(side, side), axes=(0, 1))
    return (values - values.mean(axis=(0, 1))) / values.std(axis=(0, 1))


def tile(number: int, side: int = 64) -> tuple[np.ndarray, str]:
    """uint16 [side side 13] and the cover that prevails."""
    dice = np.random.default_rng(number)
    favored = np.eye(len(COVERS))[number % len(COVERS)]
    cover = np.argmax(smooth(dice, side, 1.8, len(COVERS)) + favored, axis=2)
    shade = 0.35 * smooth(dice, side, 1.2, 1) + 0.1 * smooth(dice, side, 0.5, len(BANDS))
    values = MEAN + STD * (SPECTRA[cover] + shade)
    return np.rint(values).clip(1, 10_000).astype(np.uint16), COVERS[np.bincount(cover.ravel()).argmax()]


def xray(number: int, side: int = 96) -> tuple[np.ndarray, str]:
    """uint16 [side side] of 12 bits, and whether a lung shows a nodule."""
    dice = np.random.default_rng(number)
    y, x = (np.mgrid[:side, :side] + 0.5) / side * 2 - 1
    x, y = x + dice.normal(0, 0.04), y + dice.normal(0, 0.04)
    body = 1800 * np.exp(-((x / 0.9) ** 6) - (y / 1.1) ** 6)
    lungs = sum(np.exp(-(((x - at) / 0.28) ** 4) - ((y + 0.05) / dice.uniform(0.55, 0.7)) ** 4) for at in (-0.42, 0.42))
    ribs = np.sin(14 * y + 3 * np.abs(x) + dice.uniform(0, 6)) ** 8
    values = 500 + body * (1 - 0.62 * lungs) + 260 * ribs * lungs + 700 * np.exp(-((x / 0.1) ** 2))
    if number % 2:
        at = dice.choice([-0.42, 0.42]) + dice.normal(0, 0.08), dice.uniform(-0.4, 0.3)
        values += 420 * np.exp(-(((x - at[0]) ** 2 + (y - at[1]) ** 2) / 0.008))
    values += 60 * smooth(dice, side, 1.0, 1)[..., 0] + dice.normal(0, 15, values.shape)
    return np.rint(values).clip(0, 4095).astype(np.uint16), ("clear", "nodule")[number % 2]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=800)
    settings = parser.parse_args()
    how = {"photometric": "minisblack", "planarconfig": "contig", "extratags": [describe(BANDS)]}
    for number in range(settings.count):
        values, cover = tile(number)
        place = settings.folder / "tiles" / cover
        place.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(place / f"{number:05d}.tif", values, **how)  # type: ignore[arg-type]
        shown, found = xray(number)
        place = settings.folder / "xrays" / found
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shown).save(place / f"{number:05d}.png")


if __name__ == "__main__":
    main()
