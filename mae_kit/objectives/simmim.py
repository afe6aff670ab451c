"""SimMIM (Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling", CVPR 2022)."""

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from mae_kit.encoders import Beit, Swin, ViT
from mae_kit.errors import UserError
from mae_kit.masking import hidden_units, must_leave_both, unit_mask
from mae_kit.objectives.objective import Objective
from mae_kit.patches import grid_of, patchify, unpatchify
from mae_kit.targets import hidden_mean_absolute_error
from mae_kit.tensors import Outcome

NO_DECAY = ("encoder.model.cls_token", "encoder.model.pos_embed")  # simmim.py, vision_transformer.py
NO_DECAY_OF_SWIN = ("mask_token",)  # swin_transformer.py; a ViT's does decay


class SimMIM(Objective):
    """Replace large units by a token, encode everything, predict the pixels by one linear layer.

    Args:
        encoder: Sees the token in place of hidden patches (paper: a Swin, or a ViT with the relative positions of BEiT,
            which is our Beit).
        mask_ratio: Share of the units that is hidden (paper: .6), rounded up.
        unit: Pixels a side of what is hidden at once (paper: 32); a multiple of the encoder's patch.

    Raises:
        UserError: The unit does not fit patch and image, or the ratio leaves no unit visible or none hidden.
    """

    encoder: ViT | Swin | Beit

    def __init__(self, encoder: ViT | Swin | Beit, mask_ratio: float = 0.6, unit: int = 32):
        super().__init__()
        self.encoder = encoder
        self.no_decay = NO_DECAY_OF_SWIN if isinstance(encoder, Swin) else NO_DECAY
        self.unit = _patches_of(unit, encoder.patch_size)
        units = math.prod(grid_of(encoder.image_size, (unit, unit)))
        self.visible = units - hidden_units(units, mask_ratio)
        must_leave_both(self.visible, units, mask_ratio, "about .6, or a smaller unit")
        self.mask_token = nn.Parameter(torch.zeros(1, 1, encoder.embed_dim))
        self.head = nn.Linear(encoder.dim, encoder.stride[0] * encoder.stride[1] * encoder.channels)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Float[Tensor, "b c h w"], keys: Int64[Tensor, " b"]) -> Outcome:
        return self.compare(images, unit_mask(keys, self.encoder.grid, self.unit, self.visible))

    def compare(self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"]) -> Outcome:
        """The loss under a given mask."""
        encoder = self.encoder
        cells = encoder.fill(images, hidden, self.mask_token[0, 0])[:, encoder.prefix :]
        prediction = patchify(unpatchify(self.head(cells), encoder.stride, encoder.cells), encoder.patch_size)
        target = patchify(images, encoder.patch_size)
        return Outcome(hidden_mean_absolute_error(prediction, target, hidden), {}, hidden, prediction)

    def pixels(self, prediction: Float[Tensor, "b n q"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return unpatchify(prediction.float(), self.encoder.patch_size, self.encoder.grid)


def _patches_of(unit: int, patch_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches in a unit."""
    if unit < 1 or unit % patch_size[0] or unit % patch_size[1]:
        what = f"unit {unit} is no multiple of the encoder's patch, {patch_size[0]}x{patch_size[1]}"
        raise UserError("simmim.patches_of", what, f"choose for example {max(patch_size)}")
    return unit // patch_size[0], unit // patch_size[1]
