"""Masks as colors over their images."""

import colorsys
from functools import cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from mae_kit.data.decode import IGNORED

OPACITY = 0.55
_GAP, _LINE, _MARK = 4, 16, 12  # pixels
_TURN = 0.618034  # of the circle of hues from one class to the next: the golden ratio keeps neighbors apart
_LIGHTNESS = (0.5, 0.68, 0.36)

Picture = UInt8[np.ndarray, "h w 3"]
Mask = UInt8[np.ndarray, "h w"]


@cache
def colors(classes: int) -> UInt8[np.ndarray, "256 3"]:
    """A color for each class, and black for ignored pixels, at `IGNORED`."""
    table = np.zeros((IGNORED + 1, 3), np.uint8)
    for number in range(classes):
        shade = colorsys.hls_to_rgb(number * _TURN % 1, _LIGHTNESS[number % 3], 0.75)
        table[number] = np.rint(255 * np.array(shade))
    return table


def overlay(image: Picture, mask: Mask, classes: int) -> Picture:
    """Blend the colors of a mask into its image; ignored pixels show the image, darker."""
    shown = (1 - OPACITY) * image + OPACITY * colors(classes)[mask]
    return np.rint(shown).astype(np.uint8)


def beside(image: Picture, masks: list[Mask], names: list[str]) -> Image.Image:
    """The image, overlays of its masks next to it, and below the colors of the classes that they show."""
    shown = np.unique(np.concatenate([mask.ravel() for mask in masks]))
    return in_row([image, *(overlay(image, mask, len(names)) for mask in masks)], shown[shown != IGNORED], names)


def in_row(parts: list[Picture], shown: np.ndarray, names: list[str]) -> Image.Image:
    """Pictures of one height next to each other, and below the colors of the classes with these numbers."""
    gap = np.full((parts[0].shape[0], _GAP, 3), 255, np.uint8)
    row = np.concatenate([piece for part in parts for piece in (part, gap)][:-1], axis=1)
    return _with_legend(Image.fromarray(row), shown.tolist(), names)


def _with_legend(picture: Image.Image, shown: list[int], names: list[str]) -> Image.Image:
    font = ImageFont.load_default(11)
    widths = [_MARK + 2 * _GAP + round(font.getlength(names[number])) + _GAP for number in shown]
    places, x, y = [], _GAP, picture.height + _GAP
    for width in widths:
        if x + width > picture.width and x > _GAP:
            x, y = _GAP, y + _LINE
        places.append((x, y))
        x += width
    whole = Image.new("RGB", (picture.width, y + _LINE), "white")
    whole.paste(picture)
    draw = ImageDraw.Draw(whole)
    for number, (x, y) in zip(shown, places, strict=True):
        draw.rectangle((x, y, x + _MARK, y + _MARK), fill=tuple(colors(len(names))[number].tolist()))
        draw.text((x + _MARK + _GAP, y - 1), names[number], "black", font)
    return whole


def to_palette(mask: Mask, classes: int) -> Image.Image:
    """A mask as a palette PNG holds it: the class of each pixel, shown in its color."""
    picture = Image.fromarray(mask, "L")
    picture.putpalette(colors(classes).tobytes())
    return picture
