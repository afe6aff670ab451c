"""iGPT (Chen et al., "Generative Pretraining from Pixels", ICML 2020)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mae_kit.encoders import ImageGPT
from mae_kit.encoders.image_gpt_model import TimmImageGPT
from mae_kit.encoders.patches import unpatchify
from mae_kit.errors import UserError
from mae_kit.objectives.masking import HideAll, RandomMask, random_mask
from mae_kit.objectives.objective import Objective, Outcome, drawn
from mae_kit.objectives.targets import hidden_mean
from mae_kit.randomness import CORRUPTION, uniform

GRAYS = 256  # of one channel of 8 bits


BERT_HIDES = 0.15
"""Fraction of the pixels that BERT hides (run.py, bert_mask_prob)."""


class IGPT(Objective):
    """Predict the color of every pixel from those before it, in raster order.

    With a non-causal encoder this is the paper's BERT objective: some embeddings become zero, and the colors of these
    pixels are predicted from all others. The original draws their number at random; here it is the same in every image.

    Args:
        encoder: Its palette is fitted to images before training, by `fit`.
        mask_ratio: Fraction of the pixels that the BERT objective hides (paper: .15); a causal encoder predicts all of
            them.

    Raises:
        UserError: The ratio leaves no pixel visible or none hidden, or one channel has fewer levels than colors. Of
            `forward`: the palette was neither fitted nor loaded.

    Example:
        >>> import torch, mae_kit as mk
        >>> igpt = mk.IGPT(mk.ImageGPT("igpt_s", img_size=8, colors=16, embed_dim=48, depth=2, num_heads=3))
        >>> igpt.fit(torch.randn(4, 3, 8, 8))
        >>> igpt(torch.randn(2, 3, 8, 8)).prediction.shape  # one of 16 colors for each pixel
        torch.Size([2, 64, 16])
    """

    encoder: ImageGPT
    fit_images = 1024

    def __init__(self, encoder: ImageGPT, mask_ratio: float = BERT_HIDES):
        super().__init__(encoder)
        random = RandomMask(encoder.grid, mask_ratio, "about .15")
        self.hide = HideAll(encoder.grid) if encoder.causal else random
        colors = len(encoder.model.palette)
        if encoder.channels == 1 and colors > GRAYS:
            what = f"the palette has {colors} colors, grayscale images have {GRAYS}"
            fix = f"give --objective.encoder.colors {GRAYS} or less"
            raise UserError("encoder.colors.sources", what, fix)
        self.initialize()

    def fit(self, images: Float[Tensor, "m c h w"]) -> None:
        """Fit the palette to normalized images.

        Raises:
            UserError: The images have fewer colors than the palette.
        """
        self.encoder.fit_palette(images)

    def compare(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], visible: int | None = None
    ) -> Outcome:
        if not self.encoder.model.has_palette:
            fix = "call fit(images) first, or load weights, which include one"
            raise UserError("objective.palette.fit", "the palette was never fitted", fix)
        if self.encoder.causal:
            return self._compare(self.encoder(images), images, hidden)
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
        self, images: Float[Tensor, "b c h w"], seeds: Int64[Tensor, " b"] | None = None
    ) -> tuple[Bool[Tensor, "b n"], Float[Tensor, "b c h w"]]:
        """Complete the upper half with a causal model: the colors of the lower half are sampled, by the seeds."""
        if not self.encoder.causal:
            return super().reconstruct(images, seeds)
        seeds = drawn(seeds, images)
        rows, columns = self.encoder.grid
        given = rows // 2 * columns
        codes = self.encoder.complete(images, given, uniform(seeds, CORRUPTION, rows * columns))
        hidden = torch.arange(rows * columns, device=images.device) >= given
        return hidden.expand(len(images), -1), self._painted(codes)

    def _painted(self, codes: Int64[Tensor, "b n"]) -> Float[Tensor, "b c h w"]:
        return unpatchify(self.encoder.model.palette[codes], (1, 1), self.encoder.grid)


def classify_and_predict(
    model: TimmImageGPT, images: Float[Tensor, "b c h w"], seeds: Int64[Tensor, " b"]
) -> tuple[Float[Tensor, "b k"], Float[Tensor, ""]]:
    """Compute logits of the classes and the pretraining loss, which fine-tuning keeps (paper, "fine-tuning").

    A BERT computes both from one image with pixels hidden, as in the original's model.py.
    """
    codes = model.codes(images)
    if model.causal:
        hidden = torch.ones_like(codes, dtype=torch.bool)
        tokens = model.encode(model.enter(codes))
    else:
        hidden = random_mask(seeds, model.img_size, BERT_HIDES)
        tokens = model.fill(codes, hidden, torch.zeros(model.embed_dim, device=codes.device))
    errors = F.cross_entropy(model.color_head(tokens).float().transpose(1, 2), codes, reduction="none")
    return model.forward_head(tokens), hidden_mean(errors, hidden)
