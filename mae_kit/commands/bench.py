"""`mae-kit bench`: speed and memory of an encoder over image sizes."""

import logging
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mae_kit.encoders import Encoder
from mae_kit.evaluation.speed import Cost, encoder_cost
from mae_kit.plots.figures import check_png, save_figure
from mae_kit.training.precision import Precision
from mae_kit.training.ranges import POSITIVE, check_ranges
from mae_kit.weights.recognize import load_encoder

log = logging.getLogger(__name__)

LARGER = (1, 1.5, 2, 3, 4)  # times the encoder's own size

Size = tuple[int, int]


def bench(
    encoder: Path,
    out: Path = Path("bench.png"),
    sizes: list[int] | None = None,
    batch_size: int = 16,
    precision: Precision = "auto",
) -> dict[str, Any]:
    """Measure images per second and peak memory of an encoder on this machine, at several image sizes.

    Each size runs in its own process, on the GPU if there is one.

    Args:
        encoder: A run, any encoder file or folder that `mae-kit import` reads, or timm:NAME.
        out: The PNG file to write.
        sizes: Sides of square images in pixels, for example 224,384; by default 1, 1.5, 2, 3 and 4 times the encoder's
            own.
        batch_size: Images per batch.
        precision: Precision, as in training.

    Returns:
        `plot`, the path; `sizes`, for each image size images per second and peak memory of a batch in 10^6 bytes, both
        null if the memory does not suffice.

    Raises:
        UserError: No encoder, or an image size that is not a multiple of the patch size.
    """
    check_ranges({"batch_size": batch_size}, batch_size=POSITIVE)
    check_png(out)
    own: Encoder = load_encoder(encoder)
    chosen = [(size, size) for size in sizes] if sizes else _larger(own)
    costs = {}
    for height, width in chosen:
        cost = encoder_cost(own.name, own.model_args, (height, width), batch_size, precision)
        costs[height, width] = cost
        log.info(f"{height} x {width}: {_describe(cost)}")
    save_figure(out, costs_figure(costs, batch_size))
    return {"plot": str(out), "batch_size": batch_size, "sizes": [_row(*pair) for pair in costs.items()]}


def _larger(encoder: Encoder) -> list[Size]:
    """Multiples of the output cells."""
    (rows, columns), (height, width) = encoder.cells, encoder.stride
    return [(int(rows * factor) * height, int(columns * factor) * width) for factor in LARGER]


def _describe(cost: Cost | None) -> str:
    if cost is None:
        return "out of memory"
    memory = "" if cost.batch_mb is None else f", {cost.batch_mb:,.0f} MB for the batch"
    return f"{cost.images_per_second:,.1f} images/s{memory}"


def _row(size: Size, cost: Cost | None) -> dict[str, Any]:
    return {"image_size": list(size), **(cost._asdict() if cost else dict.fromkeys(Cost._fields))}


def costs_figure(costs: dict[Size, Cost | None], batch_size: int) -> Figure:
    """Draw images per second and memory over the height of the image."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    speed, memory = figure.subplots(1, 2)
    known = [(size[0], cost) for size, cost in costs.items() if cost]
    _curve(speed, [(side, cost.images_per_second) for side, cost in known], "images per second")
    peaks = [(side, cost.batch_mb) for side, cost in known if cost.batch_mb is not None]
    _curve(memory, peaks, f"MB for a batch of {batch_size}")
    return figure


def _curve(axis: Axes, points: list[tuple[int, float]], title: str) -> None:
    axis.plot([side for side, _ in points], [value for _, value in points], "o-", color="#3b82f6")
    axis.set(xlabel="height of the image, pixels", title=title)
    axis.set_ylim(bottom=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.3)
