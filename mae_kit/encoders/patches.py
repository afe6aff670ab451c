"""Cut images into patches and back. The order inside a patch is (p_row, p_col, channel), as in MAE."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mae_kit.errors import UserError


def grid_of(image_size: tuple[int, int], patch_size: tuple[int, int]) -> tuple[int, int]:
    """Count the rows and columns of patches.

    Raises:
        UserError: The patch does not divide the image.
    """
    (height, width), (rows, columns) = image_size, patch_size
    if height % rows or width % columns:
        raise UserError(
            "encoder.img_size.patch",
            f"patch_size {rows}x{columns} does not divide img_size {height}x{width}",
            f"choose an image size that is a multiple, for example {height // rows * rows or rows}",
        )
    return height // rows, width // columns


def patchify(images: Float[Tensor, "b c h w"], patch_size: tuple[int, int]) -> Float[Tensor, "b n q"]:
    """Cut images into patches, row by row: [b c h w] -> [b n p*p*c]."""
    b, c, h, w = images.shape
    rows, columns = grid_of((h, w), patch_size)
    p, q = patch_size
    x = images.reshape(b, c, rows, p, columns, q)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, rows * columns, p * q * c)


def unpatchify(
    patches: Float[Tensor, "b n q"], patch_size: tuple[int, int], grid: tuple[int, int]
) -> Float[Tensor, "b c h w"]:
    """Put patches back together; the inverse of `patchify`."""
    (rows, columns), (p, q) = grid, patch_size
    b, _, values = patches.shape
    c = values // (p * q)
    x = patches.reshape(b, rows, columns, p, q, c)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(b, c, rows * p, columns * q)


def resize_kernel(kernel: Float[Tensor, "d c p q"], size: tuple[int, int]) -> Float[Tensor, "d c r s"]:
    """Resize the kernel that embeds patches so that a resized patch is embedded as before (FlexiViT, section 3.4).

    By the pseudo-inverse of bilinear resizing: exact where patches grow, else as near as a kernel of that size comes.
    """
    down, across = (_inverse(old, new) for old, new in zip(kernel.shape[2:], size, strict=True))
    return torch.einsum("rp,sq,dcpq->dcrs", down, across, kernel.double()).to(kernel.dtype)


def _inverse(old: int, new: int) -> Float[Tensor, "r p"]:
    """Of resizing along one axis, transposed."""
    columns = torch.eye(old, dtype=torch.float64)[None, None]
    resized = F.interpolate(columns, (new, old), mode="bilinear", antialias=True)[0, 0]
    return torch.linalg.pinv(resized.T)


def visible_indices(hidden: Bool[Tensor, "b n"], visible: int | None = None) -> Int64[Tensor, "b v"]:
    """Find the indices of the visible patches of each row, ascending.

    Args:
        hidden: The same count in every row.
        visible: How many are visible in a row; None to count them, which waits for the device and breaks a compiled
            graph.
    """
    if visible is None:
        visible = int((~hidden[0]).sum())
    return hidden.to(torch.uint8).argsort(dim=1, stable=True)[:, :visible]
