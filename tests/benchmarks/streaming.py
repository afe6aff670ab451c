"""Memory and time of the methods of `evaluate` with features on disk: a million images, 3 GB.

python tests/benchmarks/streaming.py
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from command import run
from safetensors.torch import save_file

from mae_kit.evaluation import probe
from mae_kit.evaluation.labeled_features import FeatureSplits, LabeledFeatures
from mae_kit.evaluation.methods import score_fewshot, score_knn, score_probe
from mae_kit.evaluation.rank import feature_statistics
from mae_kit.evaluation.rows import Rows, stored_matrices
from mae_kit.evaluation.speed import memory_growth

_SHARD = 10_000
_NOISE = 0.5


def streaming(
    images: int = 1_000_000, width: int = 768, queries: int = 1000, classes: int = 100, folder: Path | None = None
) -> dict[str, Any]:
    """Write made-up features in files of 10,000 and ask each method once.

    Args:
        images: To learn from.
        width: Of the features.
        queries: Images to score on: noisy copies of some of the first.
        classes: Drawn by chance, so that only neighbors can tell those of the queries.
        folder: Where the files lie meanwhile; by default where the system keeps temporary ones.

    Returns:
        Megabytes of the matrix, and for each method peak of memory, seconds of the clock and of processors, top-1.
    """
    probe.STEPS = 1
    with TemporaryDirectory(dir=folder) as made:
        sides = _written(Path(made), images, width, queries, classes)
        megabytes = images * width * 4 / 1e6
        print(f"{images:,} x {width} features are {megabytes:,.0f} MB")
        works: dict[str, Callable[[], Any]] = {
            "nearest neighbors": partial(score_knn, sides, k=20, temperature=0.07),
            "10 labels a class": partial(score_fewshot, sides, shots=10, seeds=5),
            "linear probe, an epoch": partial(score_probe, sides, epochs=1, batch_size=16_384, seed=0),
            "rank": partial(feature_statistics, sides.train.features),
        }
        return {"megabytes": megabytes, "rows": [_measured(name, work) for name, work in works.items()]}


def _written(folder: Path, images: int, width: int, queries: int, classes: int) -> FeatureSplits:
    torch.manual_seed(0)
    labels, chosen = torch.randint(classes, (images,)), torch.randperm(images)[:queries]
    for number, size in enumerate(labels.split(_SHARD)):
        save_file({"1 mean": torch.randn(len(size), width)}, folder / f"{number:06}.safetensors")
    rows = Rows([stored_matrices(file)["1 mean"] for file in sorted(folder.iterdir())])
    asked = rows[chosen]
    known = LabeledFeatures(rows, labels.to(rows.device))
    return FeatureSplits(
        known,
        LabeledFeatures(asked + _NOISE * torch.randn_like(asked), known.labels[chosen]),
        list(map(str, range(classes))),
    )


def _measured(name: str, work: Callable[[], Any]) -> dict[str, Any]:
    growth, started, used = memory_growth("cpu"), time.perf_counter(), time.process_time()
    top1 = getattr(work(), "value", None)
    found = {"seconds": time.perf_counter() - started, "core_seconds": time.process_time() - used, "peak_mb": growth()}
    told = "" if top1 is None else f", top-1 {top1:.3f}"
    memory = "of memory not told" if found["peak_mb"] is None else f"{found['peak_mb']:.0f} MB more at the peak"
    print(f"{name:24}{memory}, {found['seconds']:.1f} s, {found['core_seconds']:.1f} core-seconds{told}")
    return {"method": name, "top1": top1, **found}


if __name__ == "__main__":
    run(streaming)
