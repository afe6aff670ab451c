"""Hiera's masked autoencoder (Ryali et al., "Hiera: A Hierarchical Vision Transformer without the
Bells-and-Whistles", ICML 2023).
"""

from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from mae_kit.encoders.decoders import StageFusion, TransformerDecoder
from mae_kit.encoders.hiera import Hiera
from mae_kit.masking import must_leave_both, unit_mask, visible_count
from mae_kit.objectives.mae import as_in_mae
from mae_kit.objectives.objective import Objective
from mae_kit.targets import hidden_mean_squared_error, patch_targets, predicted_images
from mae_kit.tensors import Outcome


class HieraMAE(Objective):
    """Hide most mask units, encode the visible ones, add up what each stage made of them, decode, compare as in MAE.

    Args:
        encoder: Sees only the visible mask units.
        mask_ratio: Share of the mask units that is hidden (paper: .6).
        norm_pix_loss: Compare with each cell normalized by its own mean and deviation.
        decoder_dim: Width of the decoder (hiera_mae.py: 512).
        decoder_depth: Blocks of the decoder (hiera_mae.py: 8).
        decoder_heads: Attention heads of the decoder (hiera_mae.py: 16).

    Raises:
        UserError: The ratio leaves no mask unit visible or none hidden.
    """

    encoder: Hiera
    no_decay = ("encoder.model.pos_embed",)  # hiera.py, no_weight_decay; the decoder's does decay

    def __init__(
        self,
        encoder: Hiera,
        mask_ratio: float = 0.6,
        norm_pix_loss: bool = True,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
    ):
        super().__init__()
        self.unit = encoder.unit
        units = encoder.grid[0] * encoder.grid[1] // (self.unit[0] * self.unit[1])
        self.visible = visible_count(units, mask_ratio)
        must_leave_both(self.visible, units, mask_ratio, "about .6")
        self.encoder, self.norm_pix_loss = encoder, norm_pix_loss
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
        return self.compare(images, unit_mask(keys, self.encoder.grid, self.unit, self.visible))

    def compare(self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"]) -> Outcome:
        """The loss under a given mask, which hides whole units, the same count in every row."""
        tokens = self.fusion(self.encoder.drop(images, hidden))
        prediction = self.decoder(tokens, self.encoder.places(hidden))
        target = patch_targets(images, self.encoder.patch_size, self.norm_pix_loss)
        return Outcome(hidden_mean_squared_error(prediction, target, hidden), {}, hidden, prediction)

    def pixels(self, prediction: Float[Tensor, "b n q"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return predicted_images(prediction, images, self.encoder.patch_size, self.norm_pix_loss)
