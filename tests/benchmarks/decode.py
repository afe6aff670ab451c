"""Images per second from shards to random crops in uint8: mae_kit, the bare calls below it, Pillow and torchvision.

python tests/benchmarks/decode.py "DIR/train-*.tar" --size 64          without shards: on made photos of three sizes
"""

import itertools
import statistics
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from command import run
from made import make_shards
from theirs import open_with_pillow, usual_crop
from torchvision.transforms.functional import pil_to_tensor
from turns import Turn, Way, table, take_turns

from mae_kit.data.index.open import open_index
from mae_kit.data.loading.crop import DRAWS, random_resized_boxes
from mae_kit.data.loading.loader import TrainBatches

MADE = [(112, 112, 64), (128, 128, 96), (500, 375, 224)]  # width and height of photos, side of the crop
COUNT = 1024


def decode(shards: str | None = None, size: int = 224, images: int = 256, rounds: int = 20) -> dict[str, Any]:
    """Time decode and RandomResizedCrop (bicubic, .2 to 1) of all, in turn, on one thread.

    mae_kit reads, checks, decodes, crops and collates; the bare calls are simplejpeg's and torch's of images in memory,
    with crops drawn before and not kept, so that no loader can be faster.

    Args:
        shards: A folder of tar shards, or a pattern; by default photos are made, of the sizes in `MADE`.
        size: Pixels a side of the crop.
        images: Images of a turn, drawn anew for each.
        rounds: Turns of each.

    Returns:
        By pixels of the median image and of the crop, a row of the table for each way.
    """
    if shards is not None:
        return dict([timed(shards, size, images, rounds)])
    found = {}
    with TemporaryDirectory() as folder:
        for width, height, crop in MADE:
            made = make_shards(Path(folder) / f"{width}", COUNT, width, height)
            found |= dict([timed(str(made), crop, images, rounds)])
    return found


def timed(shards: str, size: int, images: int, rounds: int) -> tuple[str, list[dict[str, Any]]]:
    """The sizes, in words, and the rows of the table."""
    index = open_index(Path(shards))
    width, height, kilobytes = (statistics.median(x.tolist()) for x in (index.width, index.height, index.size // 1000))
    print(f"{len(index)} images, the median has {width:g} x {height:g} pixels in {kilobytes:g} kB; crops of {size}")
    ways = [Way("mae_kit", partial(ours, shards, size, images), images)]
    ways += [Way("bare calls", partial(bare, shards, size, images), images)]
    ways += [Way("Pillow and torchvision", partial(usual, shards, size, images), images)]
    take_turns(ways, rounds)
    return f"{width:g}x{height:g} to {size}", table(ways)


def ours(shards: str, size: int, images: int) -> Turn:
    """What a loader worker does, in this process."""
    torch.set_num_threads(1)
    index, turns = open_index(Path(shards)), itertools.count()
    batches = TrainBatches(index, np.arange(len(index)), images, (size, size))
    return lambda: batches[next(turns)].images


def bare(shards: str, size: int, images: int) -> Turn:
    """Decode by simplejpeg and crop by torch's bicubic with antialias, nothing else."""
    torch.set_num_threads(1)
    index, turns = open_index(Path(shards)), itertools.count()
    batches = TrainBatches(index, np.arange(len(index)), images, (size, size))
    made = []
    for item in range(8):
        _, samples = batches.order.samples_at(batches.replica.positions(item, images))
        draws = np.random.default_rng(item).random((images, DRAWS))
        sizes = np.stack([index.height[samples], index.width[samples]], axis=1)
        boxes = random_resized_boxes(draws, sizes, batches.crop_scale)
        made.append([(index.read(int(row)), box) for row, box in zip(samples, boxes, strict=True)])

    def turn() -> None:
        for data, (top, left, height, width) in made[next(turns) % len(made)]:
            cut = simplejpeg.decode_jpeg(data, "RGB")[top : top + height, left : left + width]
            pixels = torch.from_numpy(cut).permute(2, 0, 1)[None]
            F.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True)

    return turn


def usual(shards: str, size: int, images: int) -> Turn:
    """Pillow and torchvision, the bytes read as ours are."""
    torch.set_num_threads(1)
    index, crop = open_index(Path(shards)), usual_crop(size)

    def turn() -> torch.Tensor:
        rows = torch.randint(len(index), (images,)).tolist()
        return torch.stack([pil_to_tensor(crop(open_with_pillow(index.read(row)))) for row in rows])

    return turn


if __name__ == "__main__":
    run(decode)
