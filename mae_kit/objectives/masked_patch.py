"""Masked patch prediction (Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, appendix B.1.2)."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from mae_kit.encoders import ViT
from mae_kit.encoders.patches import patchify, unpatchify
from mae_kit.errors import UserError
from mae_kit.objectives.masking import RandomMask
from mae_kit.objectives.objective import Objective, Outcome, drawn, initialize_head
from mae_kit.objectives.targets import color_classes, colors_of, hidden_mean, hidden_mean_squared_error
from mae_kit.randomness import CORRUPTION, uniform

Target = Literal["color", "mosaic", "pixels"]
TO_TOKEN, TO_OTHER = 0.8, 0.1  # of the corrupted patches; the rest stays as it is
CELLS = {"color": 1, "mosaic": 4}  # a side of a patch
MOST_CHANNELS = 4  # 8 levels each: 4096 classes


class MaskedPatch(Objective):
    """Corrupt half of the patch embeddings, encode everything, predict the original patches.

    Of the corrupted patches, 80% become the mask token, 10% the embedding of another patch of the image, and 10% stay
    unchanged, as in BERT. All of them count as hidden and are predicted.

    Args:
        encoder: Sees the corrupted embeddings.
        mask_ratio: Fraction of the patches that is corrupted (paper: .5).
        target: color = the patch's mean color, 3 bits per channel, one of 512 classes (the paper's best); mosaic = the
            same for each of 4 x 4 cells; pixels = all pixels, by squared error.

    Raises:
        UserError: The ratio corrupts no patch or all of them, or the target does not suit the patch or the channels. Of
            `forward` with the targets color and mosaic: the statistics were never set.

    Example:
        >>> import torch, mae_kit as mk
        >>> vit = mk.ViT("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2)
        >>> objective = mk.MaskedPatch(vit)
        >>> objective.set_statistics(mean=[0.5] * 3, std=[0.25] * 3)
        >>> outcome = objective(torch.randn(2, 3, 32, 32))
        >>> outcome.hidden.sum(dim=1)  # of 4 x 4 patches
        tensor([8, 8])
    """

    encoder: ViT

    def __init__(self, encoder: ViT, mask_ratio: float = 0.5, target: Target = "color"):
        super().__init__(encoder)
        self.hide, self.target = RandomMask(encoder.grid, mask_ratio, "about .5"), target
        self.mask_token = nn.Parameter(torch.zeros(encoder.dim))
        self.head = nn.Linear(encoder.dim, _outputs(encoder, target))
        self.initialize()

    def initialize_weights(self, encoder: bool) -> None:
        initialize_head(self.mask_token, self.head)

    def forward(self, images: Float[Tensor, "b c h w"], seeds: Int64[Tensor, " b"] | None = None) -> Outcome:
        seeds = drawn(seeds, images)
        hidden = self.hide(seeds)
        return self._compare(images, hidden, self.corrupt(self.encoder.embed(images), hidden, seeds))

    def compare(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], visible: int | None = None
    ) -> Outcome:
        """Compute the loss with every hidden patch replaced by the token."""
        embedded = self.encoder.embed(images)
        return self._compare(
            images, hidden, torch.where(hidden[:, :, None], self.mask_token.to(embedded.dtype), embedded)
        )

    def _compare(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], corrupted: Float[Tensor, "b n d"]
    ) -> Outcome:
        prediction = self.head(self.encoder.encode(corrupted)[:, self.encoder.prefix :])
        if self.target == "pixels":
            target = patchify(images, self.encoder.patch_size)
            return Outcome(hidden_mean_squared_error(prediction, target, hidden), {}, hidden, prediction)
        return self._classify(prediction, self.classes(images), hidden)

    def corrupt(
        self, embedded: Float[Tensor, "b n d"], hidden: Bool[Tensor, "b n"], seeds: Int64[Tensor, " b"]
    ) -> Float[Tensor, "b n d"]:
        """The embeddings with the hidden ones replaced, or left, by chance."""
        n = embedded.shape[1]
        fate, which = uniform(seeds, CORRUPTION, 2 * n).chunk(2, dim=1)
        other = (torch.arange(n, device=seeds.device) + 1 + (which * (n - 1)).long()) % n  # never the patch itself
        others = embedded.gather(1, other[:, :, None].expand_as(embedded))
        to_token, to_other = hidden & (fate < TO_TOKEN), hidden & (fate >= TO_TOKEN) & (fate < TO_TOKEN + TO_OTHER)
        x = torch.where(to_other[:, :, None], others, embedded)
        return torch.where(to_token[:, :, None], self.mask_token.to(x.dtype), x)

    def classes(self, images: Float[Tensor, "b c h w"]) -> Int64[Tensor, "b n m"]:
        """Compute the classes to predict: the color of each cell of each patch, one of 8 ** c."""
        cells = CELLS[self.target]
        size = self.encoder.patch_size[0] // cells, self.encoder.patch_size[1] // cells
        means = F.avg_pool2d(self.colors(images), size)  # b c rows*cells columns*cells
        return color_classes(patchify(means, (cells, cells)).unflatten(2, (cells * cells, -1)))

    def _classify(
        self, prediction: Float[Tensor, "b n q"], target: Int64[Tensor, "b n m"], hidden: Bool[Tensor, "b n"]
    ) -> Outcome:
        logits = prediction.float().unflatten(2, (target.shape[2], -1))  # b n m k
        error = F.cross_entropy(logits.permute(0, 3, 1, 2), target, reduction="none").mean(dim=2)
        right = (logits.argmax(dim=3) == target).float().mean(dim=2)
        return Outcome(hidden_mean(error, hidden), {"accuracy": hidden_mean(right, hidden)}, hidden, prediction)

    def pixels(self, prediction: Float[Tensor, "b n q"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        if self.target == "pixels":
            return unpatchify(prediction.float(), self.encoder.patch_size, self.encoder.grid)
        return self._painted(prediction.unflatten(2, (CELLS[self.target] ** 2, -1)).argmax(dim=3), images)

    def target_pixels(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return images if self.target == "pixels" else self._painted(self.classes(images), images)

    def _painted(self, classes: Int64[Tensor, "b n m"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        cells, grid = CELLS[self.target], self.encoder.grid
        small = unpatchify(colors_of(classes, self.encoder.channels).flatten(2), (cells, cells), grid)
        return self.normalize(F.interpolate(small, images.shape[2:], mode="nearest"))


def _outputs(encoder: ViT, target: Target) -> int:
    (height, width), channels = encoder.patch_size, encoder.channels
    if target == "pixels":
        return height * width * channels
    cells = CELLS[target]
    if height % cells or width % cells:
        raise UserError(
            "objective.target.mosaic",
            f"target mosaic cuts a patch into 4x4 cells, not one of {height}x{width}",
            "choose color",
        )
    if channels > MOST_CHANNELS:
        raise UserError(
            "objective.target.color",
            f"target {target} has 8 levels per channel, too many classes for {channels}",
            "choose pixels",
        )
    return cells * cells * 8**channels
