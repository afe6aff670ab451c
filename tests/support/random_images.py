"""Random pictures that differ from all others, copies of them, and shards of such pictures."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def picture(number: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """Draw soft blobs of color."""
    blobs = np.random.default_rng(number).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(blobs).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, quality: int = 90) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def write_pictures(
    path: Path, images: Mapping[str, bytes], labels: Mapping[str, object] | None = None, suffix: str = "cls"
) -> None:
    """Write a shard of JPEGs by key, labeled if `labels` has the key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, data in images.items():
            members = {"jpg": data}
            if labels and key in labels:
                members[suffix] = str(labels[key]).encode()
            for suffix, content in members.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
