"""Masked autoencoders (He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022)."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from mae_kit.encoders.decoders import TransformerDecoder
from mae_kit.encoders.vit import ViT
from mae_kit.errors import UserError
from mae_kit.masking import MASKS, MaskKind, must_leave_both, visible_count, visible_indices
from mae_kit.objectives.objective import Objective
from mae_kit.targets import hidden_mean_squared_error, patch_targets, predicted_images
from mae_kit.tensors import Outcome


class MAE(Objective):
    """Hide most patches, encode the visible ones, decode all, compare the hidden ones with the true pixels.

    Args:
        encoder: Sees only the visible patches.
        mask_ratio: Share of the patches that is hidden (paper: .75).
        mask: Which patches: random, block or grid (paper, figure 6).
        norm_pix_loss: Compare with each patch normalized by its own mean and deviation (paper, table 1d).
        decoder_dim: Width of the decoder (paper: 512).
        decoder_depth: Blocks of the decoder (paper: 8).
        decoder_heads: Attention heads of the decoder (paper: 16).

    Raises:
        UserError: The ratio leaves no patch visible or none hidden, or does not suit the kind of mask;
            or a patch is a single value, and to be normalized.
    """

    encoder: ViT

    def __init__(
        self,
        encoder: ViT,
        mask_ratio: float = 0.75,
        mask: MaskKind = "random",
        norm_pix_loss: bool = True,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
    ):
        super().__init__()
        patches = encoder.grid[0] * encoder.grid[1]
        must_leave_both(visible_count(patches, mask_ratio), patches, mask_ratio, "about .75")
        MASKS[mask](torch.zeros(1, dtype=torch.int64), encoder.grid, mask_ratio)  # what it refuses, it refuses now
        outputs = encoder.patch_size[0] * encoder.patch_size[1] * encoder.channels
        if norm_pix_loss and outputs == 1:
            raise UserError(
                "mae.unusable", "a patch of one value has no spread to be normalized by", "choose a larger patch"
            )
        self.encoder = encoder
        self.mask_ratio, self.mask, self.norm_pix_loss = mask_ratio, mask, norm_pix_loss
        self.decoder = TransformerDecoder(
            encoder.dim, encoder.grid, outputs, encoder.prefix, decoder_dim, decoder_depth, decoder_heads
        )
        self.encoder.fix_positions()
        self.apply(as_in_mae)
        nn.init.xavier_uniform_(encoder.model.patch_embed.proj.weight.data.flatten(1))
        for token in (encoder.model.cls_token, encoder.model.reg_token, self.decoder.mask_token):
            if token is not None:
                nn.init.normal_(token, std=0.02)

    def forward(self, images: Float[Tensor, "b c h w"], keys: Int64[Tensor, " b"]) -> Outcome:
        hidden = MASKS[self.mask](keys, self.encoder.grid, self.mask_ratio)
        return self.compare(images, hidden, visible_count(hidden.shape[1], self.mask_ratio))

    def compare(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], count: int | None = None
    ) -> Outcome:
        """The loss under a given mask, which hides as many in every row; `count` are visible, where that is known."""
        visible = visible_indices(hidden, count)
        prediction = self.decoder(self.encoder.drop(images, visible), visible)
        loss = hidden_mean_squared_error(prediction, self.target(images), hidden)
        return Outcome(loss, {}, hidden, prediction)

    def target(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n q"]:
        """What the prediction of every patch is compared with."""
        return patch_targets(images, self.encoder.patch_size, self.norm_pix_loss)

    def pixels(self, prediction: Float[Tensor, "b n q"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return predicted_images(prediction, images, self.encoder.patch_size, self.norm_pix_loss)


def as_in_mae(module: nn.Module) -> None:
    """The original's initialization (models_mae.py): Xavier for every linear layer, LayerNorm the identity."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
