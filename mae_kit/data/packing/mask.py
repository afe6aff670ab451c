"""The mask of an image as a shard stores it: a gray PNG, upright and of the size of the image, 255 = ignored."""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from mae_kit.data.decode import IGNORED, MAX_PIXELS, decode_mask, image_size, orientation_of
from mae_kit.data.orientation import upright
from mae_kit.errors import BadImage


class Mask(NamedTuple):
    """A mask to store.

    Attributes:
        data: The PNG.
        present: Classes that it shows, ascending.
    """

    data: bytes
    present: list[int]


def encode_mask(
    data: bytes, image: bytes, stored: bytes, ignore: int = IGNORED, classes: int = 0, max_pixels: int = MAX_PIXELS
) -> Mask:
    """Turn a mask upright as its image is, scale it to the stored image, and give ignored pixels the value 255.

    Args:
        data: The mask: a gray or palette PNG of the size of the image's pixels, before EXIF turns them.
        image: The image, as the source has it.
        stored: The image, as the shard has it.
        ignore: Value of the pixels that are ignored, besides 255.
        classes: Number of classes; 0 where it is not known.
        max_pixels: Larger ones are refused.

    Raises:
        BadImage: It does not decode, is of another size, or has values that are no class.
    """
    mask, orientation = decode_mask(data, max_pixels), orientation_of(image, max_pixels)
    width, height = image_size(image, max_pixels)
    if mask.shape != ((width, height) if orientation >= 5 else (height, width)):
        what = f"{mask.shape[1]} x {mask.shape[0]} pixels for an image of {width} x {height}"
        raise BadImage(f"mask of another size: {what}")
    mask = upright(mask[..., None], orientation)[..., 0]
    mask = np.where(mask == ignore, np.uint8(IGNORED), mask)
    present = np.unique(mask[mask != IGNORED]).tolist()
    if present and classes and present[-1] >= classes:
        raise BadImage(f"mask with a class that is not known: {present[-1]} of {classes} classes")
    picture, buffer = Image.fromarray(mask), io.BytesIO()
    size = image_size(stored, max_pixels)
    (picture if size == picture.size else picture.resize(size, Image.Resampling.NEAREST)).save(buffer, "PNG")
    return Mask(buffer.getvalue(), present)
