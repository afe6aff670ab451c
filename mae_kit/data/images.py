"""Some images to look at or to classify, from wherever the user points."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from mae_kit.console import say
from mae_kit.data.crop import crop_resize, evaluation_box
from mae_kit.data.decode import decode, decode_deep, is_dark, largest_of_16_bits
from mae_kit.data.index import open_index
from mae_kit.data.listing import list_images
from mae_kit.data.remote import Place, is_url
from mae_kit.errors import BadImage, UserError


def load_images(
    source: Place, image_size: tuple[int, int], channels: int, limit: int
) -> tuple[UInt8[Tensor, "b c h w"], list[str]]:
    """The first `limit` images, and their names; see `read_images`."""
    pixels, names = zip(*islice(read_images(source, image_size, channels), limit), strict=True)
    return torch.stack(pixels), list(names)


def read_images(
    source: Place, image_size: tuple[int, int], channels: int, crop_share: float = 1.0
) -> Iterator[tuple[UInt8[Tensor, "c h w"], str]]:
    """Central crops of images one by one, each with its name; those that do not decode are named and left out.

    Args:
        source: An image, a folder of images, a tar, or a folder or pattern of shards; or a URL of shards.
        image_size: Height and width in pixels.
        channels: Channels to decode to.
        crop_share: Share of the shorter side that the crop keeps.

    Raises:
        UserError: Nothing is there, or nothing that decodes.
    """
    decoded = dark = False
    for name, read in _sources(source):
        try:
            data = read()
            image = decode(data, channels)
        except BadImage as error:
            say(f"{name} is left out: {error}")
            continue
        if not dark and (dark := _is_dark(data)):
            say(f"{name} has 16 bits and is DARK: give shards of such images, made by `mae-kit shard --white`")
        decoded = True
        yield crop_resize(image, evaluation_box(image.shape[:2], image_size, crop_share), image_size), name
    if not decoded:
        raise UserError(f"no image in {source}", "give an image, a folder of images, or shards")


def _is_dark(data: bytes) -> bool:
    deep = decode_deep(data)
    return deep is not None and is_dark(largest_of_16_bits(deep) or 0)


def _sources(place: Place):
    """Pairs of a name and a function that reads the bytes."""
    source = Path(place)
    if is_url(place) or source.suffix == ".tar" or (source.is_dir() and any(source.glob("*.tar"))):
        index = open_index(place)
        return ((index.keys[i], lambda i=i: index.read(i)) for i in range(len(index)))
    if source.is_dir():
        return ((str(source / name), (source / name).read_bytes) for name in list_images(source)[0])
    return ((str(p), p.read_bytes) for p in [source] if p.is_file())
