"""How alike the position embeddings of the patches are. Pure functions."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def position_similarity(table: Float[Tensor, "1 t d"], grid: tuple[int, int]) -> Float[Tensor, "y x y x"]:
    """Cosine of each patch's embedding with every other's (Dosovitskiy et al., figure 7): [row, column] against all.

    Args:
        table: Position embeddings; rows of prefix tokens, in front, are left out.
        grid: Rows and columns of patches.
    """
    directions = F.normalize(table[0, -grid[0] * grid[1] :].float(), dim=1)
    return (directions @ directions.T).reshape(*grid, *grid)


def similarity_by_offset(similarity: Float[Tensor, "y x y x"]) -> tuple[list[float], list[float]]:
    """Mean cosine of patches in one row that are 0, 1, 2, ... columns apart, and of those in one column."""
    rows, columns = similarity.shape[:2]
    within_row = similarity.diagonal(dim1=0, dim2=2).mean(dim=-1)
    within_column = similarity.diagonal(dim1=1, dim2=3).mean(dim=-1)
    return (
        [float(within_row.diagonal(offset).mean()) for offset in range(columns)],
        [float(within_column.diagonal(offset).mean()) for offset in range(rows)],
    )
