"""Images that one process loads a second, by kind of number: decoded, cropped at random and resized to 64 px.

    python tests/benchmarks/kinds.py

Images are of 96 x 96 pixels, smooth noise; 8 bits of three channels as JPEG, as photos are.
"""

import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mae_kit.commands.shard import shard
from mae_kit.data.index.open import open_index
from mae_kit.data.loading.loader import TrainBatches

COUNT, SIDE, BATCH, BATCHES, ROUNDS = 256, 96, 64, 8, 3
KINDS = [("uint8", 1), ("uint8", 3), *itertools.product(("uint16", "int16", "float32"), (1, 3, 13))]


def write(folder: Path, kind: str, bands: int) -> None:
    """Make images, 8 bits as JPEG and PNG, others as .npy."""
    dice = np.random.default_rng(0)
    folder.mkdir()
    for number in range(COUNT):
        coarse = Image.fromarray(dice.integers(0, 256, (12, 12 * bands), dtype=np.uint8))
        values = np.asarray(coarse.resize((SIDE * bands, SIDE), Image.Resampling.BICUBIC)).reshape(SIDE, SIDE, bands)
        if kind == "uint8":
            image = Image.fromarray(values[..., 0] if bands == 1 else values)
            image.save(folder / f"{number}.{'png' if bands == 1 else 'jpg'}", quality=90)
        else:
            np.save(folder / f"{number}.npy", (values.astype(np.uint16) * 100).astype(kind))


def speed(folder: Path, bands: int) -> float:
    """Images a second, the best of some rounds."""
    index = open_index(folder)
    batches = TrainBatches(index, np.arange(len(index)), BATCH, (64, 64), bands)
    batches[0]
    taken = []
    for start in range(ROUNDS):
        started = time.perf_counter()
        for number in range(BATCHES):
            batches[start * BATCHES + number]
        taken.append(time.perf_counter() - started)
    return BATCH * BATCHES / min(taken)


def main() -> None:
    print("| kind | bands | KB an image | images a second |")
    for kind, bands in KINDS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(folder / "in", kind, bands)
            how: dict[str, Any] = {"channels": 1} if (kind, bands) == ("uint8", 1) else {}
            stats = shard(str(folder / "in"), folder / "out", workers=1, **how)
            size = stats["splits"]["train"]["bytes"] / COUNT
            print(f"| {kind} | {bands} | {size / 1e3:.1f} | {speed(folder / 'out', bands):,.0f} |", flush=True)


if __name__ == "__main__":
    main()
