"""Hiera's masked autoencoder (Ryali et al., "Hiera: A Hierarchical Vision Transformer without the
Bells-and-Whistles", ICML 2023).
"""

from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from mae_kit.backbones.hiera import Hiera
from mae_kit.decoders import StageFusion, TransformerDecoder
from mae_kit.errors import UserError
from mae_kit.masks import unit_mask, visible_count
from mae_kit.objectives.mae import as_in_mae
from mae_kit.objectives.objective import Objective
from mae_kit.patches import patchify, unpatchify
from mae_kit.targets import hidden_mean_squared_error, normalise_patches, unnormalise_patches
from mae_kit.tensors import Outcome


class HieraMAE(Objective):
    """Hide most mask units, encode the visible ones, add up what each stage made of them, decode, compare as in MAE.

    Args:
        encoder: Sees only the visible mask units.
        mask_ratio: Share of the mask units that is hidden (paper: .6).
        normalise_target: Compare with each cell normalised by its own mean and deviation.
        decoder_dim: Width of the decoder (hiera_mae.py: 512).
        decoder_depth: Blocks of the decoder (hiera_mae.py: 8).
        decoder_heads: Attention heads of the decoder (hiera_mae.py: 16).

    Raises:
        UserError: The ratio leaves no mask unit visible or none hidden.
    """

    encoder: Hiera

    def __init__(
        self,
        encoder: Hiera,
        mask_ratio: float = 0.6,
        normalise_target: bool = True,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
    ):
        super().__init__()
        self.unit = encoder.unit
        units = encoder.grid[0] * encoder.grid[1] // (self.unit[0] * self.unit[1])
        if not 0 < visible_count(units, mask_ratio) < units:
            raise UserError(f"mask_ratio {mask_ratio} of {units} units leaves none on one side", "choose about .6")
        self.encoder, self.mask_ratio, self.normalise_target = encoder, mask_ratio, normalise_target
        self.fusion = StageFusion(encoder.widths, encoder.dim)
        outputs = encoder.patch_size[0] * encoder.patch_size[1] * encoder.channels
        self.decoder = TransformerDecoder(
            encoder.dim, encoder.grid, outputs, 0, decoder_dim, decoder_depth, decoder_heads
        )
        self.decoder.pos_embed.requires_grad_(True)
        self.apply(as_in_mae)
        nn.init.xavier_uniform_(encoder.model.patch_embed.proj.weight.data.flatten(1))
        for tensor in (self.decoder.mask_token, self.decoder.pos_embed):
            nn.init.trunc_normal_(tensor, std=0.02)

    def forward(self, images: Float[Tensor, "b c h w"], keys: Int64[Tensor, " b"]) -> Outcome:
        return self.compare(images, unit_mask(keys, self.encoder.grid, self.unit, self.mask_ratio))

    def compare(self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"]) -> Outcome:
        """The loss under a given mask, which hides whole units, the same count in every row."""
        tokens = self.fusion(self.encoder.drop(images, hidden))
        prediction = self.decoder(tokens, self.encoder.places(hidden))
        target = patchify(images, self.encoder.patch_size).float()
        target = normalise_patches(target) if self.normalise_target else target
        return Outcome(hidden_mean_squared_error(prediction, target, hidden), {}, hidden, prediction)

    def pixels(self, prediction: Float[Tensor, "b n q"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        if self.normalise_target:
            prediction = unnormalise_patches(prediction.float(), patchify(images, self.encoder.patch_size).float())
        return unpatchify(prediction.float(), self.encoder.patch_size, self.encoder.grid)
