"""Images per second from bytes to a random crop in uint8: mae_kit against Pillow and torchvision, on the same bytes.

python tests/benchmarks/decode.py "DIR/train-*.tar" --size 64
"""

import itertools
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import run
from theirs import open_with_pillow, usual_crop
from torchvision.transforms.functional import pil_to_tensor
from turns import Turn, Way, table, take_turns

from mae_kit.data.index.open import open_index
from mae_kit.data.loading.loader import TrainBatches


def decode(shards: str, size: int = 224, images: int = 64, rounds: int = 20) -> dict[str, Any]:
    """Time decode and RandomResizedCrop (bicubic, .2 to 1) of both, in turn, on one thread.

    Args:
        shards: A folder of tar shards, or a pattern.
        size: Pixels a side of the crop.
        images: Images of a turn, drawn anew for each.
        rounds: Turns of each.

    Returns:
        Pixels and bytes of the median image, and a row of the table for each way.
    """
    index = open_index(Path(shards))
    width, height, kilobytes = (statistics.median(x.tolist()) for x in (index.width, index.height, index.size // 1000))
    print(
        f"{len(index)} images, the median has {width:g} x {height:g} pixels in {kilobytes:g} kB; crops of {size} pixels"
    )
    ways = [Way("mae_kit", partial(ours, shards, size, images), images)]
    ways += [Way("Pillow and torchvision", partial(usual, shards, size, images), images)]
    take_turns(ways, rounds)
    return {"width": width, "height": height, "kilobytes": kilobytes, "size": size, "rows": table(ways)}


def ours(shards: str, size: int, images: int) -> Turn:
    """What a loader worker does, in this process."""
    torch.set_num_threads(1)
    index, turns = open_index(Path(shards)), itertools.count()
    batches = TrainBatches(index, np.arange(len(index)), images, (size, size))
    return lambda: batches[next(turns)].images


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
