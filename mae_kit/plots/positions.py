"""Similarity of the position embeddings of patches."""

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

INCHES = 6.4


def position_similarity(table: Float[Tensor, "1 t d"], grid: tuple[int, int]) -> Float[Tensor, "y x y x"]:
    """Compute the cosine of each patch's embedding with all others (Dosovitskiy et al., figure 7).

    Args:
        table: Position embeddings; rows of prefix tokens, which come first, are left out.
        grid: Rows and columns of patches.
    """
    directions = F.normalize(table[0, -grid[0] * grid[1] :].float(), dim=1)
    return (directions @ directions.T).reshape(*grid, *grid)


def similarity_by_offset(similarity: Float[Tensor, "y x y x"]) -> tuple[list[float], list[float]]:
    """Average the cosine of patches in a row that are 0, 1, 2, ... columns apart, and of those in a column."""
    rows, columns = similarity.shape[:2]
    within_row = similarity.diagonal(dim1=0, dim2=2).mean(dim=-1)
    within_column = similarity.diagonal(dim1=1, dim2=3).mean(dim=-1)
    return (
        [float(within_row.diagonal(offset).mean()) for offset in range(columns)],
        [float(within_column.diagonal(offset).mean()) for offset in range(rows)],
    )


def positions_figure(similarity: Float[Tensor, "y x y x"]) -> Figure:
    """Draw the map of each patch at its place."""
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
    """Put the maps side by side with an empty line between them."""
    rows, columns = similarity.shape[:2]
    framed = np.pad(similarity.numpy(), ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    return framed.transpose(0, 2, 1, 3).reshape(rows * (rows + 1), columns * (columns + 1))[:-1, :-1]
