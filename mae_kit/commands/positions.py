"""What an encoder knows of places: how alike its position embeddings are."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from mae_kit.plots.encoder import Eye
from mae_kit.plots.figures import must_be_png, save_figure
from mae_kit.plots.positions import position_similarity, similarity_by_offset

log = logging.getLogger(__name__)

INCHES = 6.4


def positions(encoder: Path, out: Path = Path("positions.png")) -> dict[str, Any]:
    """Draw how alike the position embeddings of an encoder are: for each patch a map of its cosine with all others.

    Args:
        encoder: A pretraining run, or its encoder.safetensors.
        out: The picture to write, PNG.

    Returns:
        The picture's path, the grid of patches, and the mean cosine of patches of one row that are 0, 1, 2, ... columns
        apart (`columns_apart`) and of one column that are 0, 1, 2, ... rows apart (`rows_apart`).

    Raises:
        UserError: No encoder.
    """
    must_be_png(out)
    vit = Eye(encoder).vit
    similarity = position_similarity(vit.model.pos_embed.detach().cpu(), vit.grid)  # type: ignore[union-attr]
    save_figure(out, positions_figure(similarity))
    columns, rows = similarity_by_offset(similarity)
    log.info(f"{out}: {vit.grid[0]} x {vit.grid[1]} patches, cosine with the neighbor {columns[1]:.2f}")
    return {"picture": str(out), "grid": list(vit.grid), "columns_apart": columns, "rows_apart": rows}


def positions_figure(similarity: Float[Tensor, "y x y x"]) -> Figure:
    """The maps of all patches, each at the place of its patch."""
    rows, columns = similarity.shape[:2]
    figure = Figure(figsize=(INCHES + 1, INCHES * rows / columns + 0.6), layout="constrained")
    axis = figure.subplots()
    drawn = axis.imshow(_mosaic(similarity), cmap="viridis", vmax=1, interpolation="nearest")
    axis.set_xticks(
        [(columns + 1) * (i + 0.5) - 1 for i in range(columns)], [str(i + 1) for i in range(columns)], fontsize=8
    )
    axis.set_yticks([(rows + 1) * (i + 0.5) - 1 for i in range(rows)], [str(i + 1) for i in range(rows)], fontsize=8)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set(xlabel="column of the patch", ylabel="row of the patch", title="Similarity of position embeddings")
    figure.colorbar(drawn, ax=axis, label="cosine", shrink=0.83)
    return figure


def _mosaic(similarity: Float[Tensor, "y x y x"]) -> Float[np.ndarray, "h w"]:
    """Maps side by side, an empty line between them."""
    rows, columns = similarity.shape[:2]
    framed = np.pad(similarity.numpy(), ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    return framed.transpose(0, 2, 1, 3).reshape(rows * (rows + 1), columns * (columns + 1))[:-1, :-1]
