"""Some images to look at or to classify, from wherever the user points."""

from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from mae_kit.console import say
from mae_kit.data.crop import crop_resize, evaluation_box
from mae_kit.data.decode import IMAGE_SUFFIXES, decode
from mae_kit.data.index import open_index
from mae_kit.data.remote import Place, is_url
from mae_kit.errors import BadImage, UserError


def load_images(
    source: Place, image_size: tuple[int, int], channels: int, limit: int, crop_share: float = 1.0
) -> tuple[UInt8[Tensor, "b c h w"], list[str]]:
    """Central crops of up to `limit` images, and their names; images that do not decode are named and left out.

    Args:
        source: An image, a folder of images, a tar, or a folder or pattern of shards; or a URL of shards.
        image_size: Height and width in pixels.
        channels: Channels to decode to.
        limit: How many at most.
        crop_share: Share of the shorter side that the crop keeps.

    Raises:
        UserError: Nothing is there, or nothing that decodes.
    """
    pixels, names = [], []
    for name, read in _sources(source):
        try:
            image = decode(read(), channels)
        except BadImage as error:
            say(f"{name} is left out: {error}")
            continue
        pixels.append(crop_resize(image, evaluation_box(image.shape[:2], image_size, crop_share), image_size))
        names.append(name)
        if len(pixels) == limit:
            break
    if not pixels:
        raise UserError(f"no image in {source}", "give an image, a folder of images, or shards")
    return torch.stack(pixels), names


def _sources(place: Place):
    """Pairs of a name and a function that reads the bytes."""
    source = Path(place)
    if is_url(place) or source.suffix == ".tar" or (source.is_dir() and any(source.glob("*.tar"))):
        index = open_index(place)
        return ((index.keys[i], lambda i=i: index.read(i)) for i in range(len(index)))
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    wanted = [p for p in files if p.suffix.lower().lstrip(".") in IMAGE_SUFFIXES or p == source]
    return ((str(p), p.read_bytes) for p in wanted)
