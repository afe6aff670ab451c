"""MaskFeat (Wei et al., "Masked Feature Prediction for Self-Supervised Visual Pre-Training", CVPR 2022)."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mae_kit.encoders import ViT
from mae_kit.encoders.patches import patchify, unpatchify
from mae_kit.errors import UserError
from mae_kit.objectives.masking import BlockwiseMask
from mae_kit.objectives.objective import Objective, Outcome, initialize_head
from mae_kit.objectives.targets import ORIENTATIONS, gradients, hidden_mean_squared_error, orientation_histograms

BLOCKS = 5  # would hide all, at their smallest (SlowFast, imagenet.py: 15 of 78 patches)


class MaskFeat(Objective):
    """Replace hidden patches with a mask token, encode everything, predict their histograms of oriented gradients
    (HOG).

    Args:
        encoder: Sees the mask token in place of hidden patches.
        mask_ratio: Maximum fraction of the patches that is hidden, in blocks of at least a fifth of it, as in BEiT
            (paper: .4; SlowFast's imagenet.py: 78 of 196 patches, blocks of 15 or more).
        cell: Side in pixels of a cell, which has one histogram for each channel (paper: 8, four cells in a patch).

    Raises:
        UserError: The ratio leaves no patch visible or none hidden, no block fits into the image, or the
            cell does not divide the patch.

    Example:
        >>> import torch, mae_kit as mk
        >>> vit = mk.ViT("vit_tiny_patch16_224", img_size=64, patch_size=16, depth=2)
        >>> outcome = mk.MaskFeat(vit)(torch.randn(2, 3, 64, 64))
        >>> outcome.prediction.shape  # 2 x 2 cells, 3 channels, 9 orientations
        torch.Size([2, 16, 108])
    """

    encoder: ViT

    def __init__(self, encoder: ViT, mask_ratio: float = 0.4, cell: int = 8):
        super().__init__(encoder)
        self.cell, self.cells = cell, _cells_of(encoder.patch_size, cell)
        most = round(encoder.grid[0] * encoder.grid[1] * mask_ratio)
        self.hide = BlockwiseMask(encoder.grid, most, max(1, most // BLOCKS), mask_ratio)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, encoder.dim))  # 3-D as in the original, where it decays
        self.head = nn.Linear(encoder.dim, self.cells[0] * self.cells[1] * encoder.channels * ORIENTATIONS)
        self.initialize()

    def initialize_weights(self, encoder: bool) -> None:
        initialize_head(self.mask_token, self.head)

    def compare(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], visible: int | None = None
    ) -> Outcome:
        prediction = self.head(self.encoder.fill(images, hidden, self.mask_token[0, 0])[:, self.encoder.prefix :])
        return Outcome(hidden_mean_squared_error(prediction, self.target(images), hidden), {}, hidden, prediction)

    def target(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n q"]:
        """Compute the histograms of each patch, in the order (cell row, cell column, channel, orientation)."""
        histograms = orientation_histograms(*gradients(images.float()), self.cell)
        return patchify(histograms.movedim(4, 2).flatten(1, 2), self.cells)

    def pixels(self, prediction: Float[Tensor, "b n q"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Draw each cell as lines along its edges, in each channel; the stronger the gradient, the brighter."""
        histograms = unpatchify(prediction.float(), self.cells, self.encoder.grid).unflatten(1, (-1, ORIENTATIONS))
        drawn = histograms.new_zeros(())
        for orientation, line in enumerate(_lines(self.cell, prediction.device)):
            drawn = drawn.maximum(histograms[:, :, orientation, :, None, :, None] * line[:, None])  # b c y p x q
        return self.normalize(drawn.flatten(4, 5).flatten(2, 3).clamp(0, 1))

    def target_pixels(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.pixels(self.target(images), images)


def _cells_of(patch_size: tuple[int, int], cell: int) -> tuple[int, int]:
    """Count the rows and columns of cells in a patch."""
    if cell < 1 or patch_size[0] % cell or patch_size[1] % cell:
        what = f"cell {cell} does not divide the encoder's patch, {patch_size[0]}x{patch_size[1]}"
        raise UserError("objective.cell", what, f"choose, for example, {math.gcd(*patch_size)}")
    return patch_size[0] // cell, patch_size[1] // cell


def _lines(cell: int, device: torch.device) -> Float[Tensor, "k p q"]:
    """Draw a fading line through the middle of a cell for each orientation, perpendicular to its gradient."""
    middle = torch.arange(cell, device=device) - (cell - 1) / 2
    angle = (torch.arange(ORIENTATIONS, device=device)[:, None, None] + 0.5) / ORIENTATIONS * math.pi
    return (1 - (middle[:, None] * angle.cos() + middle * angle.sin()).abs()).clamp(min=0)
