"""SimMIM (Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling", CVPR 2022)."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mae_kit.encoders import BEiTEncoder, Swin, ViT
from mae_kit.encoders.patches import grid_of, patchify, unpatchify
from mae_kit.errors import UserError
from mae_kit.objectives.masking import UnitMask, hidden_units
from mae_kit.objectives.objective import Objective, Outcome, initialize_head
from mae_kit.objectives.targets import hidden_mean_absolute_error

NO_DECAY = ("encoder.model.cls_token", "encoder.model.pos_embed")  # simmim.py, vision_transformer.py


class SimMIM(Objective):
    """Replace large units of patches with a mask token, encode everything, predict the pixels with one linear layer.

    Args:
        encoder: Sees the mask token in place of hidden patches (paper: a Swin, or a ViT with BEiT's relative position
            bias, which is our BEiTEncoder).
        mask_ratio: Fraction of the units that is hidden (paper: .6), rounded up.
        unit: Side in pixels of what is hidden at once (paper: 32); a multiple of the encoder's patch.

    Raises:
        UserError: The unit does not fit patch and image, or the ratio leaves no unit visible or none hidden.

    Example:
        >>> import torch, mae_kit as mk
        >>> vit = mk.ViT("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2)
        >>> simmim = mk.SimMIM(vit, unit=16)
        >>> simmim(torch.randn(2, 3, 32, 32)).hidden.sum(dim=1)  # 3 of 4 units, 4 patches each
        tensor([12, 12])
    """

    encoder: ViT | Swin | BEiTEncoder

    def __init__(self, encoder: ViT | Swin | BEiTEncoder, mask_ratio: float = 0.6, unit: int = 32):
        super().__init__(encoder)
        self.no_decay = NO_DECAY if encoder.mask_token_decays else ("mask_token",)
        patches = _patches_of(unit, encoder.patch_size)
        units = math.prod(grid_of(encoder.image_size, (unit, unit)))
        self.hide = UnitMask(encoder.grid, patches, units - hidden_units(units, mask_ratio), mask_ratio)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, encoder.embed_dim))
        self.head = nn.Linear(encoder.dim, encoder.stride[0] * encoder.stride[1] * encoder.channels)
        self.initialize()

    def initialize_weights(self, encoder: bool) -> None:
        initialize_head(self.mask_token, self.head)

    def compare(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], visible: int | None = None
    ) -> Outcome:
        encoder = self.encoder
        cells = encoder.fill(images, hidden, self.mask_token[0, 0])[:, encoder.prefix :]
        prediction = patchify(unpatchify(self.head(cells), encoder.stride, encoder.cells), encoder.patch_size)
        target = patchify(images, encoder.patch_size)
        return Outcome(hidden_mean_absolute_error(prediction, target, hidden), {}, hidden, prediction)

    def pixels(self, prediction: Float[Tensor, "b n q"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return unpatchify(prediction.float(), self.encoder.patch_size, self.encoder.grid)


def _patches_of(unit: int, patch_size: tuple[int, int]) -> tuple[int, int]:
    """Count the rows and columns of patches in a unit."""
    if unit < 1 or unit % patch_size[0] or unit % patch_size[1]:
        what = f"unit {unit} is not a multiple of the encoder's patch, {patch_size[0]}x{patch_size[1]}"
        raise UserError("objective.unit", what, f"choose, for example, {max(patch_size)}")
    return unit // patch_size[0], unit // patch_size[1]
