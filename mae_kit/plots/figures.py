"""Figures of tiles, a row an image, as matplotlib draws them on white paper."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from mae_kit.durable import replacing
from mae_kit.errors import UserError

TILE = 1.15  # inches, with its share of the margins
DPI = 120


def must_be_png(out: Path) -> None:
    """For the file that a verb is told to write.

    Raises:
        UserError: It is called otherwise.
    """
    if out.suffix.lower() != ".png":
        raise UserError("out", f"--out {out} is not a PNG", f"give --out {out.with_suffix('.png')}")


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, whole or not at all; the same figure gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as making:
        figure.savefig(making, format="png", dpi=DPI, metadata={"Software": None})


def tiles(figure: Figure | SubFigure, rows: int, titles: Sequence[str]) -> np.ndarray:
    """Axes [rows, columns] without ticks, a title over each column."""
    axes = figure.subplots(rows, len(titles), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    return axes


def tile_size(image_size: tuple[int, int]) -> tuple[float, float]:
    """Height and width of an image's tile in inches."""
    height, width = image_size
    shorter = min(height, width)
    return TILE * height / shorter, TILE * width / shorter


def photo(image: UInt8[Tensor, "c h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """One or two channels are shown gray; of more than three the first three."""
    three = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    return three.permute(1, 2, 0).cpu().numpy()


def show_photo(axis: Axes, image: UInt8[Tensor, "c h w"]) -> None:
    axis.imshow(photo(image), interpolation="nearest")


def show_heat(axis: Axes, image: UInt8[Tensor, "c h w"], heat: Float[Tensor, "y x"]) -> None:
    """A value a patch over the photo in gray, on a scale of its own: the lower, the more of the photo is seen."""
    height, width = image.shape[-2:]
    corners = (0, width, height, 0)
    level = ((heat - heat.min()) / (heat.max() - heat.min())).nan_to_num().numpy()
    axis.imshow(photo(image).mean(axis=2) / 2 + 64, cmap="gray", vmin=0, vmax=255, extent=corners)
    axis.imshow(level, cmap="inferno", alpha=0.85 * level**0.5, extent=corners, interpolation="nearest")
