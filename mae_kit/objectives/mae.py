"""Masked autoencoders (He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022)."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from mae_kit.encoders.decoders import TransformerDecoder
from mae_kit.encoders.patches import visible_indices
from mae_kit.encoders.vit import ViT
from mae_kit.errors import UserError
from mae_kit.objectives.masking import MaskKind, mask_generator
from mae_kit.objectives.objective import Objective, Outcome
from mae_kit.objectives.targets import hidden_mean_squared_error, patch_targets, predicted_images


class MAE(Objective):
    """Hide most patches, encode the visible ones, decode all, and predict the pixels of the hidden ones.

    The encoder's position embeddings stay fixed. A fresh encoder (no weights loaded) gets sin-cos ones and the paper's
    initialization.

    Args:
        encoder: Sees only the visible patches.
        mask_ratio: Fraction of the patches that is hidden (paper: .75).
        mask: Which patches are hidden: random, block (BEiT's blocks) or grid (paper, figure 6 and table 1f).
        norm_pix_loss: Predict patches normalized by their own mean and standard deviation (paper, table 1d).
        decoder_dim: Width of the decoder (paper: 512).
        decoder_depth: Blocks of the decoder (paper: 8).
        decoder_heads: Attention heads of the decoder (paper: 16).
        mask_unit: Side, in patches, of the squares that a random mask hides (MAE: 1, Pixio: 4).

    Raises:
        UserError: The ratio leaves no patch visible or none hidden, or does not suit the kind of mask; or patches of a
            single value are to be normalized.

    Example:
        >>> import torch, mae_kit as mk
        >>> vit = mk.ViT("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2)
        >>> mae = mk.MAE(vit, decoder_dim=32, decoder_depth=1, decoder_heads=2)
        >>> outcome = mae(torch.randn(2, 3, 32, 32))
        >>> outcome.loss.backward()
        >>> outcome.hidden.sum(dim=1)  # of 4 x 4 patches
        tensor([12, 12])
    """

    encoder: ViT
    decoder: TransformerDecoder
    reconstructs = True

    def __init__(
        self,
        encoder: ViT,
        mask_ratio: float = 0.75,
        mask: MaskKind = "random",
        norm_pix_loss: bool = True,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        mask_unit: int = 1,
    ):
        super().__init__(encoder)
        self.hide = mask_generator(mask, encoder.grid, mask_ratio, mask_unit)
        self.mask_ratio, self.mask, self.norm_pix_loss = mask_ratio, mask, norm_pix_loss
        outputs = encoder.patch_size[0] * encoder.patch_size[1] * encoder.channels
        if norm_pix_loss and outputs == 1:
            what = "a patch of one value has no standard deviation to normalize by"
            raise UserError("objective.norm_pix_loss", what, "choose a larger patch, or norm_pix_loss false")
        self.decoder = self.make_decoder(encoder, outputs, decoder_dim, decoder_depth, decoder_heads)
        if encoder.model.pos_embed is not None:
            encoder.model.pos_embed.requires_grad_(False)
        self.initialize()

    def make_decoder(self, encoder: ViT, outputs: int, dim: int, depth: int, heads: int) -> TransformerDecoder:
        """Make what predicts `outputs` values for each patch."""
        return TransformerDecoder(encoder.dim, encoder.grid, outputs, encoder.prefix, dim, depth, heads)

    def initialize_weights(self, encoder: bool) -> None:
        (self if encoder else self.decoder).apply(as_in_mae)
        tokens = [self.decoder.mask_token]
        if encoder:
            model = self.encoder.model
            self.encoder.set_sincos_positions()
            nn.init.xavier_uniform_(model.patch_embed.proj.weight.data.flatten(1))
            tokens = [model.cls_token, model.reg_token, *tokens]
        for token in tokens:
            if token is not None:
                nn.init.normal_(token, std=0.02)

    def compare(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], visible: int | None = None
    ) -> Outcome:
        indices = visible_indices(hidden, visible)
        prediction = self.decoder(self.encoder.drop(images, indices), indices)
        loss = hidden_mean_squared_error(prediction, self.target(images), hidden)
        return Outcome(loss, {}, hidden, prediction)

    def target(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n q"]:
        """Compute what the prediction of every patch is compared with: its pixels, normalized if norm_pix_loss."""
        return patch_targets(images, self.encoder.patch_size, self.norm_pix_loss)

    def pixels(self, prediction: Float[Tensor, "b n q"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return predicted_images(prediction, images, self.encoder.patch_size, self.norm_pix_loss)


def as_in_mae(module: nn.Module) -> None:
    """Initialize a module as models_mae.py does: linear layers by Xavier, LayerNorm as the identity."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
