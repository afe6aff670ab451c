"""MaskFeat (Wei et al., "Masked Feature Prediction for Self-Supervised Visual Pre-Training", CVPR 2022)."""

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from mae_kit.encoders import ViT
from mae_kit.errors import UserError
from mae_kit.masking import blocks_fit, blockwise_mask, must_leave_both
from mae_kit.objectives.objective import Objective
from mae_kit.patches import patchify, unpatchify
from mae_kit.targets import ORIENTATIONS, gradients, hidden_mean_squared_error, orientation_histograms
from mae_kit.tensors import Outcome

SHARE_OF_BLOCK = 5  # a block hides at least one of so many of the patches that are hidden (SlowFast, imagenet.py)


class MaskFeat(Objective):
    """Replace hidden patches by a token, encode everything, predict their histograms of oriented gradients.

    Args:
        encoder: Sees the token in place of hidden patches.
        mask_ratio: Share of the patches that is hidden at most, rounded, in BEiT's blocks, each of a fifth of them or
            more (paper: .4; SlowFast's imagenet.py: 78 of 196, blocks of 15 or more).
        cell: Pixels a side of what has one histogram a channel (paper: 8, four in a patch).

    Raises:
        UserError: The ratio leaves no patch visible or none hidden, no block fits into the image, or the
            cell does not divide the patch.
    """

    encoder: ViT

    def __init__(self, encoder: ViT, mask_ratio: float = 0.4, cell: int = 8):
        super().__init__()
        self.encoder, self.cell = encoder, cell
        self.most = _most_hidden(encoder.grid, mask_ratio)
        self.cells = _cells_of(encoder.patch_size, cell)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, encoder.dim))  # 3-D as in the original, where it decays
        self.head = nn.Linear(encoder.dim, self.cells[0] * self.cells[1] * encoder.channels * ORIENTATIONS)
        for tensor in (self.mask_token, self.head.weight):
            nn.init.trunc_normal_(tensor, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Float[Tensor, "b c h w"], keys: Int64[Tensor, " b"]) -> Outcome:
        return self.compare(images, blockwise_mask(keys, self.encoder.grid, self.most, _smallest_block(self.most)))

    def compare(self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"]) -> Outcome:
        """The loss under a given mask."""
        prediction = self.head(self.encoder.fill(images, hidden, self.mask_token[0, 0])[:, self.encoder.prefix :])
        return Outcome(hidden_mean_squared_error(prediction, self.target(images), hidden), {}, hidden, prediction)

    def target(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n q"]:
        """The histograms of each patch, in the order (cell row, cell column, channel, orientation)."""
        histograms = orientation_histograms(*gradients(images.float()), self.cell)
        return patchify(histograms.movedim(4, 2).flatten(1, 2), self.cells)

    def pixels(self, prediction: Float[Tensor, "b n q"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Each cell as the lines that its gradients stand on, in each channel; brighter where there are more."""
        histograms = unpatchify(prediction.float(), self.cells, self.encoder.grid).unflatten(1, (-1, ORIENTATIONS))
        drawn = histograms.new_zeros(())
        for orientation, line in enumerate(_lines(self.cell, prediction.device)):
            drawn = drawn.maximum(histograms[:, :, orientation, :, None, :, None] * line[:, None])  # b c y p x q
        return self.normalize(drawn.flatten(4, 5).flatten(2, 3).clamp(0, 1))

    def target_pixels(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.pixels(self.target(images), images)


def _most_hidden(grid: tuple[int, int], mask_ratio: float) -> int:
    """How many patches are hidden at most, in blocks that are shorter than the grid both ways."""
    patches = grid[0] * grid[1]
    most = round(patches * mask_ratio)
    must_leave_both(most, patches, mask_ratio, "about .4")
    if not blocks_fit(grid, most, _smallest_block(most)):
        raise UserError(
            "maskfeat.most_hidden",
            f"blocks do not fit into {grid[0]}x{grid[1]} patches",
            "choose a larger image or a smaller patch",
        )
    return most


def _smallest_block(most: int) -> int:
    return max(1, most // SHARE_OF_BLOCK)


def _cells_of(patch_size: tuple[int, int], cell: int) -> tuple[int, int]:
    """Rows and columns of cells in a patch."""
    if cell < 1 or patch_size[0] % cell or patch_size[1] % cell:
        what = f"cell {cell} does not divide the encoder's patch, {patch_size[0]}x{patch_size[1]}"
        raise UserError("maskfeat.cells_of", what, f"choose for example {math.gcd(*patch_size)}")
    return patch_size[0] // cell, patch_size[1] // cell


def _lines(cell: int, device: torch.device) -> Float[Tensor, "k p q"]:
    """A line through the middle of a cell for each orientation, two pixels wide, fading: across its gradient."""
    middle = torch.arange(cell, device=device) - (cell - 1) / 2
    angle = (torch.arange(ORIENTATIONS, device=device)[:, None, None] + 0.5) / ORIENTATIONS * math.pi
    return (1 - (middle[:, None] * angle.sin() + middle * angle.cos()).abs()).clamp(min=0)
