"""Hiera's masked autoencoder (Ryali et al., "Hiera: A Hierarchical Vision Transformer without the
Bells-and-Whistles", ICML 2023).
"""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from mae_kit.encoders.decoders import StageFusion, TransformerDecoder
from mae_kit.encoders.hiera import Hiera
from mae_kit.objectives.mae import as_in_mae
from mae_kit.objectives.masking import UnitMask, visible_count
from mae_kit.objectives.objective import Objective, Outcome
from mae_kit.objectives.targets import hidden_mean_squared_error, patch_targets, predicted_images


class HieraMAE(Objective):
    """Hide most mask units, encode the visible ones, fuse all stages, decode, and predict the hidden pixels as in MAE.

    Args:
        encoder: Sees only the visible mask units.
        mask_ratio: Fraction of the mask units that is hidden (paper: .6).
        norm_pix_loss: Predict cells normalized by their own mean and standard deviation.
        decoder_dim: Width of the decoder (hiera_mae.py: 512).
        decoder_depth: Blocks of the decoder (hiera_mae.py: 8).
        decoder_heads: Attention heads of the decoder (hiera_mae.py: 16).

    Raises:
        UserError: The ratio leaves no mask unit visible or none hidden.

    Example:
        >>> import torch, mae_kit as mk
        >>> hiera = mk.Hiera("hiera_tiny_224", img_size=64, embed_dim=24, stages=[1, 1, 2, 1])
        >>> mae = mk.HieraMAE(hiera, decoder_dim=32, decoder_depth=1, decoder_heads=2)
        >>> mae(torch.randn(2, 3, 64, 64)).hidden.sum(dim=1)  # 3 of 4 mask units, 4 cells each
        tensor([12, 12])
    """

    encoder: Hiera
    decoder: TransformerDecoder
    no_decay = ("encoder.model.pos_embed",)  # hiera.py, no_weight_decay; the decoder's decays

    def __init__(
        self,
        encoder: Hiera,
        mask_ratio: float = 0.6,
        norm_pix_loss: bool = True,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
    ):
        super().__init__(encoder)
        units = encoder.grid[0] * encoder.grid[1] // (encoder.unit[0] * encoder.unit[1])
        self.hide = UnitMask(encoder.grid, encoder.unit, visible_count(units, mask_ratio), mask_ratio)
        self.norm_pix_loss = norm_pix_loss
        self.fusion = StageFusion(encoder.widths, encoder.dim)
        outputs = encoder.patch_size[0] * encoder.patch_size[1] * encoder.channels
        self.decoder = TransformerDecoder(
            encoder.dim, encoder.grid, outputs, 0, decoder_dim, decoder_depth, decoder_heads
        )
        self.decoder.pos_embed.requires_grad_(True)
        self.initialize()

    def initialize_weights(self, encoder: bool) -> None:
        for part in (self.encoder,) * encoder + (self.fusion, self.decoder):
            part.apply(as_in_mae)
        if encoder:
            nn.init.xavier_uniform_(self.encoder.model.patch_embed.proj.weight.data.flatten(1))
        for tensor in (self.decoder.mask_token, self.decoder.pos_embed):
            nn.init.trunc_normal_(tensor, std=0.02)

    def compare(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], visible: int | None = None
    ) -> Outcome:
        tokens = self.fusion(self.encoder.drop(images, hidden, visible))
        prediction = self.decoder(tokens, self.encoder.places(hidden, visible))
        target = patch_targets(images, self.encoder.patch_size, self.norm_pix_loss)
        return Outcome(hidden_mean_squared_error(prediction, target, hidden), {}, hidden, prediction)

    def pixels(self, prediction: Float[Tensor, "b n q"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return predicted_images(prediction, images, self.encoder.patch_size, self.norm_pix_loss)
