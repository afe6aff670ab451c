"""The mask of an image as a shard stores it: a gray PNG, upright and of the size of the image, 255 = ignored."""

import io
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mae_kit.data.decode import IGNORED, MAX_PIXELS, decode_mask, image_size, orientation_of
from mae_kit.data.orientation import upright
from mae_kit.errors import BadImage

_FEW = 64  # values of a mask; a gray photo has more


class Mask(NamedTuple):
    """A mask to store.

    Attributes:
        data: The PNG.
        present: Classes that it shows, ascending.
    """

    data: bytes
    present: list[int]


def is_binary(masks: Iterable[bytes]) -> bool:
    """Whether masks hold 0 and 255 alone, as those of one kind of thing do: 255 is then no ignored pixel but class 1.

    Those that do not decode have no say.
    """
    found: set[int] = set()
    for data in masks:
        with suppress(BadImage):
            found |= {*np.unique(decode_mask(data)).tolist()}
        if found - {0, IGNORED}:
            return False
    return IGNORED in found


def shows_classes(data: bytes, image: bytes) -> bool:
    """Whether a file is a mask of an image, and no picture: a gray or palette PNG of its size, and of few values."""
    try:
        mask = decode_mask(data)
        return mask.shape == _shape(image, orientation_of(image)) and len(np.unique(mask)) <= _FEW
    except BadImage:
        return False


def encode_mask(
    data: bytes,
    image: bytes,
    stored: bytes,
    ignore: int = IGNORED,
    classes: int = 0,
    max_pixels: int = MAX_PIXELS,
    binary: bool = False,
) -> Mask:
    """Turn a mask upright as its image is, scale it to the stored image, and give ignored pixels the value 255.

    Args:
        data: The mask: a gray or palette PNG of the size of the image's pixels, before EXIF turns them.
        image: The image, as the source has it.
        stored: The image, as the shard has it.
        ignore: Value of the pixels that are ignored, besides 255.
        classes: Number of classes; 0 where it is not known.
        max_pixels: Larger ones are refused.
        binary: Whether 255 is class 1, as `is_binary` says; nothing is ignored then.

    Raises:
        BadImage: It does not decode, is of another size, or has values that are no class.
    """
    mask, orientation = decode_mask(data, max_pixels), orientation_of(image, max_pixels)
    if mask.shape != (shape := _shape(image, orientation, max_pixels)):
        what = f"{mask.shape[1]} x {mask.shape[0]} pixels for an image of {shape[1]} x {shape[0]}"
        raise BadImage(f"mask of another size: {what}")
    mask = upright(mask[..., None], orientation)[..., 0]
    mask = _without_255(mask) if binary else np.where(mask == ignore, np.uint8(IGNORED), mask)
    present = np.unique(mask[mask != IGNORED]).tolist()
    if present and classes and present[-1] >= classes:
        raise BadImage(f"mask with a class that is not known: {present[-1]} of {classes} classes")
    picture, buffer = Image.fromarray(mask), io.BytesIO()
    size = image_size(stored, max_pixels)
    (picture if size == picture.size else picture.resize(size, Image.Resampling.NEAREST)).save(buffer, "PNG")
    return Mask(buffer.getvalue(), present)


def _shape(image: bytes, orientation: int, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width of an image, before EXIF turns it."""
    width, height = image_size(image, max_pixels)
    return (width, height) if orientation >= 5 else (height, width)


def _without_255(mask: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """A mask of 0 and 255 as one of 0 and 1.

    Raises:
        BadImage: It holds other values.
    """
    if other := {*np.unique(mask).tolist()} - {0, IGNORED}:
        raise BadImage(f"mask with the value {min(other)}, where others hold 0 and 255 alone")
    return (mask == IGNORED).astype(np.uint8)
