"""Some images to look at or to classify, from wherever the user points."""

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, filterfalse, islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Num, UInt8
from PIL import Image
from torch import Tensor

from mae_kit.data.decode import count_pages, decode_raw, decode_scaled, is_dark
from mae_kit.data.index.listing import list_images
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.loading.crop import Pixels, central_crop, whole
from mae_kit.data.remote.filesystem import Place, is_url
from mae_kit.data.scale import Scale, decode_on_scale, to_rgb
from mae_kit.errors import BadImage, UserError

log = logging.getLogger(__name__)


def load_images(
    source: Place, image_size: tuple[int, int], channels: int, limit: int, scale: Scale | None = None
) -> tuple[UInt8[Tensor, "b c h w"] | Float[Tensor, "b c h w"], list[str]]:
    """At most `limit` images and their names, spread evenly over what is there: neighbors are mostly of one class or
    one day. Others take the place of those that do not decode. Of a URL the first ones, since shards are fetched whole.
    """
    order = range if is_url(source) else partial(_spread, limit)
    found = _decode(source, order, channels, partial(central_crop, target=image_size), scale)
    pixels, names = zip(*islice(found, limit), strict=True)
    return torch.stack(pixels), list(names)


def read_images(
    source: Place,
    image_size: tuple[int, int],
    channels: int,
    crop_pct: float = 1.0,
    crop_mode: str = "center",
    interpolation: str = "bicubic",
    scale: Scale | None = None,
) -> Iterator[tuple[Pixels, str]]:
    """Central crops of images one by one, each with its name; those that do not decode are named and left out.

    Args:
        source: An image, a folder of images, a tar, or a folder or pattern of shards; or a URL of shards.
        image_size: Height and width in pixels.
        channels: Channels to decode to.
        crop_pct: Fraction of the shorter side that the crop keeps.
        crop_mode: center or squash, as in `evaluation_box`.
        interpolation: bicubic or bilinear.
        scale: Of the model, where it was trained with more than 8 bits; shards are read on it, too.

    Raises:
        UserError: Nothing is there, or nothing that decodes.
    """
    crop = partial(central_crop, target=image_size, crop_pct=crop_pct, mode=crop_mode, interpolation=interpolation)
    return _decode(source, range, channels, crop, scale)


def as_rgb(image: Num[Tensor, "c h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """An image of values from 0 to 255 as it is shown: its first three channels, of one or two channels the first."""
    shown = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    return shown.permute(1, 2, 0).float().round().to(torch.uint8).cpu().numpy()


def thumbnail(data: bytes, side: int, scale: Scale | None) -> bytes:
    """A JPEG of an image whose longer side is no more than so many pixels; of more than three bands the first three."""
    image = Image.fromarray(to_rgb(data, scale) if scale else decode_scaled(data, side, side))
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=80)
    return buffer.getvalue()


def whole_images(source: Place, channels: int, scale: Scale | None = None) -> Iterator[tuple[Pixels, str]]:
    """Images of any size, not cropped; otherwise as `read_images`."""
    return _decode(source, range, channels, whole, scale)


def _decode(
    source: Place,
    order: Callable[[int], Iterable[int]],
    channels: int,
    prepare: Callable[..., Pixels],
    scale: Scale | None,
) -> Iterator[tuple[Pixels, str]]:
    """As `read_images`, in the order of so many images."""
    names, read, index = _source(source)
    if scale is None and index is not None:
        scale = index.scale
    decoded = dark = False
    for place in order(len(names)):
        try:
            data = read(place)
            image = decode_on_scale(data, channels, scale, packed=index is not None)
            pages = 1 if index is not None else count_pages(data)
        except BadImage as error:
            log.warning(f"{names[place]} is left out: {error}")
            continue
        if not (dark or scale) and (dark := _is_dark(data)):
            log.warning(
                f"{names[place]} has 16 bits and appears dark: pack such images with `mae-kit shard`, give the shards"
            )
        if pages > 1:
            log.warning(f"{names[place]}: the first of {pages} pages or frames is taken")
        decoded = True
        yield prepare(image, scale=scale), names[place]
    if not decoded:
        raise UserError("images.none", f"no image in {source}", "give an image, a folder of images, or shards")


def _spread(limit: int, count: int) -> Iterator[int]:
    """All of `count` places: `limit` of them evenly spread, then the others."""
    step = max(1.0, count / limit)
    first = [int(i * step) for i in range(min(count, limit))]
    return chain(first, filterfalse(set(first).__contains__, range(count)))


def _is_dark(data: bytes) -> bool:
    raw = decode_raw(data)
    return raw is not None and is_dark(raw.values)


def _source(place: Place) -> tuple[Sequence[str], Callable[[int], bytes], Index | None]:
    """The images' names, a function that reads the bytes of one, and the index of shards."""
    source = Path(place)
    if is_url(place) or source.suffix == ".tar" or (source.is_dir() and any(source.glob("*.tar"))):
        index = open_index(place)
        return [index.file(row) or key for row, key in enumerate(index.keys)], index.read, index
    if not source.exists():
        raise UserError("images.missing", f"{place} does not exist", "give an image, a folder of images, or shards")
    files = [source / name for name in list_images(source)[0]] if source.is_dir() else [source]
    return [str(file) for file in files], lambda i: files[i].read_bytes(), None
