"""iGPT (Chen et al., "Generative Pretraining from Pixels", ICML 2020)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mae_kit.encoders import GPT
from mae_kit.encoders.image_gpt import BERT_HIDES
from mae_kit.errors import UserError
from mae_kit.masking import must_leave_both, random_mask, visible_count
from mae_kit.objectives.objective import Objective
from mae_kit.patches import unpatchify
from mae_kit.randomness import CORRUPTION, uniform
from mae_kit.targets import hidden_mean
from mae_kit.tensors import Outcome

GRAYS = 256  # of one channel of 8 bits


class IGPT(Objective):
    """Predict the color of every pixel from those before it, in raster order.

    An encoder with causal false makes it the paper's BERT: some embeddings become zero, and the colors of these pixels
    are predicted from all others. The original draws their number by chance, here it is the same in every image.

    Args:
        encoder: Its palette is found in the images before training.
        mask_ratio: Share of the pixels that BERT hides (paper: .15); a causal encoder has all of them to predict.

    Raises:
        UserError: The ratio leaves no pixel visible or none hidden, or one channel has fewer levels than colors.
    """

    encoder: GPT
    preview = 1024

    def __init__(self, encoder: GPT, mask_ratio: float = BERT_HIDES):
        super().__init__()
        pixels = encoder.grid[0] * encoder.grid[1]
        must_leave_both(visible_count(pixels, mask_ratio), pixels, mask_ratio, "about .15")
        colors = len(encoder.model.palette)
        if encoder.channels == 1 and colors > GRAYS:
            fix = f"give --objective.init_args.encoder.init_args.colors {GRAYS} or less"
            raise UserError(
                "igpt.unusable", f"a palette of {colors} colors of images that have {GRAYS} grays at most", fix
            )
        self.encoder, self.mask_ratio = encoder, mask_ratio

    def prepare(self, images: Float[Tensor, "m c h w"]) -> None:
        self.encoder.fit_palette(images)

    def forward(self, images: Float[Tensor, "b c h w"], keys: Int64[Tensor, " b"]) -> Outcome:
        if self.encoder.causal:
            hidden = torch.ones(len(images), self.encoder.grid[0] * self.encoder.grid[1], dtype=torch.bool)
            return self._compare(self.encoder(images), images, hidden.to(images.device))
        hidden = random_mask(keys, self.encoder.grid, self.mask_ratio)
        nothing = torch.zeros(self.encoder.dim, device=images.device)
        return self._compare(self.encoder.fill(images, hidden, nothing), images, hidden)

    def _compare(
        self, tokens: Float[Tensor, "b n d"], images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"]
    ) -> Outcome:
        codes, prediction = self.encoder.model.codes(images), self.encoder.model.color_head(tokens)
        error = F.cross_entropy(prediction.float().transpose(1, 2), codes, reduction="none")
        right = (prediction.argmax(dim=2) == codes).float()
        return Outcome(hidden_mean(error, hidden), {"accuracy": hidden_mean(right, hidden)}, hidden, prediction)

    def pixels(self, prediction: Float[Tensor, "b n q"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self._painted(prediction.argmax(dim=2))

    def reconstruct(
        self, images: Float[Tensor, "b c h w"], keys: Int64[Tensor, " b"]
    ) -> tuple[Bool[Tensor, "b n"], Float[Tensor, "b c h w"]]:
        """A causal model completes the upper half: the colors of the lower one are drawn, by the keys."""
        if not self.encoder.causal:
            return super().reconstruct(images, keys)
        rows, columns = self.encoder.grid
        given = rows // 2 * columns
        codes = self.encoder.complete(images, given, uniform(keys, CORRUPTION, rows * columns))
        hidden = torch.arange(rows * columns, device=images.device) >= given
        return hidden.expand(len(images), -1), self._painted(codes)

    def _painted(self, codes: Int64[Tensor, "b n"]) -> Float[Tensor, "b c h w"]:
        return unpatchify(self.encoder.model.palette[codes], (1, 1), self.encoder.grid)
