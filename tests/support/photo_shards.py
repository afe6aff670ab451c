"""Tiny labeled shards that resemble photos: a gradient and noise, in learnable classes."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("dawn", "dusk", "noon", "night")


def photo(number: int) -> Image.Image:
    """Draw a photo whose class, `number % 4`, is the direction of the light; sizes vary."""
    random = np.random.default_rng(number)
    height, width = (int(side) for side in random.integers(36, 56, 2))
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    light = (x, 1 - x, y, 1 - y)[number % 4]
    colors = random.uniform(60, 190, 3)
    pixels = light[..., None] * colors + random.normal(0, 12, (height, width, 3)) + 30
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def jpeg(number: int, larger: int = 1) -> bytes:
    file, image = io.BytesIO(), photo(number)
    image.resize((larger * image.width, larger * image.height)).save(file, "JPEG", quality=90)
    return file.getvalue()


def classes_of(number: int) -> tuple[int, ...]:
    """Classes of a multi-label dataset: none for the first direction, two for the last; class 0 never occurs."""
    return {0: (), 1: (1,), 2: (2,), 3: (1, 3)}[number % 4]


def write_shard(
    path: Path, numbers: range, labels: bool = True, damaged: tuple[int, ...] = (), sets: bool = False, larger: int = 1
) -> None:
    """Write a webdataset shard; images listed as damaged have garbage in the middle, behind a valid header."""
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            data = jpeg(number, larger)
            if number in damaged:
                middle = len(data) // 2
                data = data[:middle] + b"\xff\xd8garbage\xff\xc4" * 8 + data[middle + 96 :]
            suffix, shown = ("classes", classes_of(number)) if sets else ("cls", (number % 4,))
            members = {"jpg": data} | ({suffix: " ".join(map(str, shown)).encode()} if labels else {})
            for suffix, content in members.items():
                _add(tar, f"{number:04d}.{suffix}", content)


def write_members(path: Path, members: list[tuple[str, bytes]]) -> None:
    """Write a shard of these names and contents."""
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            _add(tar, name, content)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def write_shards(folder: Path) -> Path:
    """Write 96 images to train-*.tar and 32 to val-0.tar."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in range(3):
        write_shard(folder / f"train-{part}.tar", range(part * 32, part * 32 + 32))
    write_shard(folder / "val-0.tar", range(1000, 1032))
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return folder
