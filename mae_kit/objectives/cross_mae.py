"""CrossMAE (Fu et al., "Rethinking Patch Dependence for Masked Autoencoders", 2024)."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mae_kit.encoders.decoders import CrossDecoder
from mae_kit.encoders.patches import visible_indices
from mae_kit.encoders.vit import ViT
from mae_kit.errors import UserError
from mae_kit.objectives.mae import MAE
from mae_kit.objectives.masking import MaskKind
from mae_kit.objectives.objective import Outcome, drawn
from mae_kit.objectives.targets import hidden_mean_squared_error
from mae_kit.randomness import PREDICTED, uniform


class CrossMAE(MAE):
    """MAE with a decoder that predicts part of the hidden patches, from mask tokens that attend only to encoded
    patches.

    Mask tokens do not see each other, so a training step can predict only some of the hidden patches, chosen at random
    by the sample's seed. In eval mode all hidden patches are predicted, and the loss is over all of them.

    The encoder's final norm is neither used nor trained: the decoder mixes the outputs of all blocks and normalizes the
    mixtures (the original's `weight_fm` with `use_input`).

    Args:
        encoder: Sees only the visible patches.
        mask_ratio: Fraction of the patches that is hidden (paper: .75).
        prediction_ratio: Fraction of all patches that is predicted in training (paper: .25; .75 is all hidden ones).
        mask: Which patches are hidden: random, block (BEiT's blocks) or grid.
        norm_pix_loss: Predict patches normalized by their own mean and standard deviation.
        decoder_dim: Width of the decoder (paper: 512 for ViT-B, 256 for ViT-S).
        decoder_depth: Blocks of the decoder (paper: 12).
        decoder_heads: Attention heads of the decoder (paper: 16 for ViT-B, 8 for ViT-S).

    Raises:
        UserError: As in MAE; or the ratio predicts more patches than are hidden, or none.

    Example:
        >>> import torch, mae_kit as mk
        >>> vit = mk.ViT("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2)
        >>> mae = mk.CrossMAE(vit, decoder_dim=32, decoder_depth=1, decoder_heads=2)
        >>> outcome = mae(torch.randn(2, 3, 32, 32))
        >>> outcome.prediction.any(dim=2).sum(dim=1)  # of 12 hidden patches
        tensor([4, 4])
    """

    decoder: CrossDecoder

    def __init__(
        self,
        encoder: ViT,
        mask_ratio: float = 0.75,
        prediction_ratio: float = 0.25,
        mask: MaskKind = "random",
        norm_pix_loss: bool = True,
        decoder_dim: int = 512,
        decoder_depth: int = 12,
        decoder_heads: int = 16,
    ):
        super().__init__(encoder, mask_ratio, mask, norm_pix_loss, decoder_dim, decoder_depth, decoder_heads)
        patches = encoder.grid[0] * encoder.grid[1]
        self.predicted = round(patches * prediction_ratio)
        if not 0 < self.predicted <= patches - (self.hide.visible or 0):
            what = f"prediction_ratio {prediction_ratio} of {patches} patches is none, or more than are hidden"
            raise UserError("objective.prediction_ratio", what, f"choose at most mask_ratio, {mask_ratio}")
        encoder.model.norm.requires_grad_(False)

    def make_decoder(self, encoder: ViT, outputs: int, dim: int, depth: int, heads: int) -> CrossDecoder:
        return CrossDecoder(encoder.dim, encoder.depth + 1, encoder.grid, outputs, dim, depth, heads)

    def forward(self, images: Float[Tensor, "b c h w"], seeds: Int64[Tensor, " b"] | None = None) -> Outcome:
        seeds = drawn(seeds, images)
        hidden = self.hide(seeds)
        if not self.training:
            return self.compare(images, hidden, self.hide.visible)
        chosen = chosen_of(hidden, uniform(seeds, PREDICTED, hidden.shape[1]), self.predicted)
        return self._predict(images, hidden, chosen, self.predicted, self.hide.visible)

    def compare(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], visible: int | None = None
    ) -> Outcome:
        count = int(hidden[0].sum()) if visible is None else hidden.shape[1] - visible
        return self._predict(images, hidden, hidden, count, visible)

    def _predict(
        self,
        images: Float[Tensor, "b c h w"],
        hidden: Bool[Tensor, "b n"],
        chosen: Bool[Tensor, "b n"],
        count: int,
        visible: int | None,
    ) -> Outcome:
        """Predict `count` chosen patches of each image; the prediction of all others is 0."""
        where = visible_indices(~chosen, count)
        some = self.decoder(self.encoder.drop_layers(images, visible_indices(hidden, visible)), where)
        prediction = some.new_zeros(*chosen.shape, some.shape[2])
        prediction = prediction.scatter(1, where[:, :, None].expand_as(some), some)
        loss = hidden_mean_squared_error(prediction, self.target(images), chosen)
        return Outcome(loss, {}, hidden, prediction)


def chosen_of(hidden: Bool[Tensor, "b n"], noise: Float[Tensor, "b n"], count: int) -> Bool[Tensor, "b n"]:
    """Choose the `count` hidden patches with the smallest noise of each row."""
    first = noise.masked_fill(~hidden, 2.0).argsort(dim=1, stable=True)[:, :count]
    return torch.zeros_like(hidden).scatter(1, first, True)
