"""What an encoder costs, against the size of the image."""

import logging
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mae_kit.encoders import Encoder
from mae_kit.evaluation.speed import Cost, encoder_cost
from mae_kit.plots.figures import must_be_png, save_figure
from mae_kit.training.config import must_be_positive
from mae_kit.training.precision import Precision
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
    """Measure how many images a second an encoder encodes here, and the memory that takes, over image sizes.

    Each size has a process of its own, on the GPU if there is one.

    Args:
        encoder: A pretraining run, or its encoder.safetensors.
        out: The picture to write, PNG.
        sizes: Sides of square images in pixels, as "[224,384]"; by default 1, 1.5, 2, 3 and 4 times the encoder's own.
        batch_size: Images at once.
        precision: As in training.

    Returns:
        The picture's path, and for each size images per second and the peak of a batch's memory in 10^6 bytes; both
        null where memory did not suffice.

    Raises:
        UserError: No encoder, or a size that its patches do not divide.
    """
    must_be_positive({"batch_size": batch_size})
    must_be_png(out)
    own: Encoder = load_encoder(encoder)
    chosen = [(size, size) for size in sizes] if sizes else _larger(own)
    costs = {}
    for height, width in chosen:
        cost = encoder_cost(own.name, own.model_args, (height, width), batch_size, precision)
        costs[height, width] = cost
        log.info(f"{height} x {width}: {_told(cost)}")
    save_figure(out, costs_figure(costs, batch_size))
    return {"picture": str(out), "batch_size": batch_size, "sizes": [_row(*pair) for pair in costs.items()]}


def _larger(encoder: Encoder) -> list[Size]:
    """Whole cells."""
    (rows, columns), (height, width) = encoder.cells, encoder.stride
    return [(int(rows * factor) * height, int(columns * factor) * width) for factor in LARGER]


def _told(cost: Cost | None) -> str:
    if cost is None:
        return "memory does not suffice"
    memory = "" if cost.batch_mb is None else f", {cost.batch_mb:,.0f} MB for the batch"
    return f"{cost.images_per_second:,.1f} images/s{memory}"


def _row(size: Size, cost: Cost | None) -> dict[str, Any]:
    return {"image_size": list(size), **(cost._asdict() if cost else dict.fromkeys(Cost._fields))}


def costs_figure(costs: dict[Size, Cost | None], batch_size: int) -> Figure:
    """Images per second and memory, against the height of the image."""
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
