"""Figures made of image tiles, by matplotlib."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from mae_kit.data.loading.images import as_rgb
from mae_kit.errors import UserError
from mae_kit.files.durable import replacing

TILE = 1.15  # inches, margins included
DPI = 120


def check_png(out: Path) -> None:
    """Check the name of an output file.

    Raises:
        UserError: It is not a PNG.
    """
    if out.suffix.lower() != ".png":
        raise UserError("out.png", f"--out {out} is not a PNG", f"give --out {out.with_suffix('.png')}")


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG atomically; equal figures give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as making:
        figure.savefig(making, format="png", dpi=DPI, metadata={"Software": None})


def tiles(figure: Figure | SubFigure, rows: int, titles: Sequence[str]) -> np.ndarray:
    """Make axes [rows, columns] without ticks, with a title above each column."""
    axes = figure.subplots(rows, len(titles), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    return axes


def tile_size(image_size: tuple[int, int]) -> tuple[float, float]:
    """Compute height and width of an image's tile in inches."""
    height, width = image_size
    shorter = min(height, width)
    return TILE * height / shorter, TILE * width / shorter


def show_photo(axis: Axes, image: Num[Tensor, "c h w"]) -> None:
    axis.imshow(as_rgb(image), interpolation="nearest")


def show_heat(axis: Axes, image: Num[Tensor, "c h w"], heat: Float[Tensor, "y x"]) -> None:
    """Draw one value for each patch over the gray photo, on its own scale; low values are transparent."""
    height, width = image.shape[-2:]
    corners = (0, width, height, 0)
    level = ((heat - heat.min()) / (heat.max() - heat.min())).nan_to_num().numpy()
    axis.imshow(as_rgb(image).mean(axis=2) / 2 + 64, cmap="gray", vmin=0, vmax=255, extent=corners)
    axis.imshow(level, cmap="inferno", alpha=0.85 * level**0.5, extent=corners, interpolation="nearest")
