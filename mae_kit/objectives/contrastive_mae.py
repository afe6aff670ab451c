"""Contrastive masked autoencoders (Mishra et al., "A simple, efficient and scalable contrastive masked autoencoder for
learning visual representations", 2022).
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from mae_kit.encoders.patches import visible_indices
from mae_kit.encoders.vit import ViT
from mae_kit.objectives.mae import MAE, as_in_mae
from mae_kit.objectives.masking import MaskKind
from mae_kit.objectives.objective import Outcome, drawn
from mae_kit.objectives.targets import hidden_mean_squared_error
from mae_kit.randomness import VIEW, uniform

HIDDEN, OUTPUTS = 512, 128  # widths of the projector
ASPECT = 4 / 3  # a crop's longer side over its shorter one, at most
MOST_SATURATED = 1.5  # times a pixel's distance from gray; 0 is gray


class ContrastiveMAE(MAE):
    """MAE whose encoder also has to recognize another view of the same image.

    Two views of each image are masked and encoded: the image, and a random crop of it, resized, flipped and with
    jittered colors. The first is reconstructed as in MAE. The mean of each view's visible tokens, passed through a
    small projector, has to be closer to that of the other view than to those of all other images in the batch (InfoNCE;
    SimCLR). The encoder thus learns to tell images apart in a few epochs, where reconstruction alone needs many.

    Differences from the paper: the second view is cropped out of the first, so that any data will do; only one view is
    reconstructed; no noise is added and predicted; the projector has LayerNorm, not BatchNorm. The other images are
    those of the micro-batch on one device, so unlike in MAE, the loss depends on how a batch is divided.

    Args:
        encoder: Sees only the visible patches.
        mask_ratio: Fraction of the patches that is hidden in each view (paper: .5).
        mask: Which patches are hidden: random, block (BEiT's blocks) or grid.
        norm_pix_loss: Predict patches normalized by their own mean and standard deviation.
        decoder_dim: Width of the decoder (paper: 512).
        decoder_depth: Blocks of the decoder (paper: 8).
        decoder_heads: Attention heads of the decoder (paper: 16).
        contrast: Weight of the contrastive loss next to the reconstruction loss.
        temperature: Temperature of the contrastive loss (paper: .1).
        crop: Smallest fraction of the image that the second view covers.
        jitter: Strength of the second view's color jitter (brightness, contrast, each channel's level), in standard
            deviations; saturation is jittered, too. 0 turns all of it off. Works for any number of channels.

    Raises:
        UserError: As in MAE.

    Example:
        >>> import torch, mae_kit as mk
        >>> vit = mk.ViT("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2)
        >>> mae = mk.ContrastiveMAE(vit, decoder_dim=32, decoder_depth=1, decoder_heads=2)
        >>> sorted(mae(torch.randn(4, 3, 32, 32)).logs)
        ['contrast', 'reconstruction']
    """

    contrasts = True

    def __init__(
        self,
        encoder: ViT,
        mask_ratio: float = 0.5,
        mask: MaskKind = "random",
        norm_pix_loss: bool = True,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        contrast: float = 0.1,
        temperature: float = 0.1,
        crop: float = 0.2,
        jitter: float = 0.4,
    ):
        super().__init__(encoder, mask_ratio, mask, norm_pix_loss, decoder_dim, decoder_depth, decoder_heads)
        self.contrast, self.temperature, self.crop, self.jitter = contrast, temperature, crop, jitter
        self.projector = nn.Sequential(
            nn.Linear(encoder.dim, HIDDEN), nn.LayerNorm(HIDDEN), nn.GELU(), nn.Linear(HIDDEN, OUTPUTS)
        ).apply(as_in_mae)

    def forward(self, images: Float[Tensor, "b c h w"], seeds: Int64[Tensor, " b"] | None = None) -> Outcome:
        seeds = drawn(seeds, images)
        hidden = self.hide(seeds)
        visible, other = (visible_indices(mask, self.hide.visible) for mask in (hidden, self.hide(~seeds)))
        two = self.encoder.drop(self.second_view(images, seeds), other)
        one = self.encoder.drop(images, visible)
        prediction = self.decoder(one, visible)
        reconstruction = hidden_mean_squared_error(prediction, self.target(images), hidden)
        contrast = info_nce(self._project(one), self._project(two), self.temperature)
        logs = {"reconstruction": reconstruction.detach(), "contrast": contrast.detach()}
        return Outcome(reconstruction + self.contrast * contrast, logs, hidden, prediction)

    def second_view(self, images: Float[Tensor, "b c h w"], seeds: Int64[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        """Crop, resize, mirror and recolor normalized images, each by its seed."""
        numbers = uniform(seeds, VIEW, 8 + images.shape[1])
        return recolored(cropped(images.float(), numbers[:, :5], self.crop), numbers[:, 5:], self.jitter)

    def _project(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b q"]:
        return self.projector(tokens[:, self.encoder.prefix :].mean(dim=1))


def cropped(
    images: Float[Tensor, "b c h w"], numbers: Float[Tensor, "b 5"], smallest: float
) -> Float[Tensor, "b c h w"]:
    """Crop a fraction of the area between `smallest` and all, resize it bilinearly, mirror half of the images.

    Args:
        images: Of any size.
        numbers: In 0..1: area, aspect, place across and down, and whether to mirror.
        smallest: Fraction of the area.
    """
    area, aspect, x, y, mirror = numbers.T
    area, aspect = smallest + (1 - smallest) * area, (math.log(ASPECT) * (2 * aspect - 1)).exp()
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = torch.where(mirror < 0.5, -width, width), (2 * x - 1) * (1 - width)
    theta[:, 1, 1], theta[:, 1, 2] = height, (2 * y - 1) * (1 - height)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def recolored(
    images: Float[Tensor, "b c h w"], numbers: Float[Tensor, "b k"], strength: float
) -> Float[Tensor, "b c h w"]:
    """Change saturation, contrast, brightness and the level of each channel.

    Args:
        images: Normalized.
        numbers: In 0..1: saturation, contrast, brightness, and one for each channel.
        strength: Of contrast and brightness, 0 for no change; a channel's own level changes by a third of it.
    """
    if not strength:
        return images
    saturation, contrast, brightness, *_ = numbers[:, :, None, None, None].unbind(dim=1)
    gray = images.mean(dim=1, keepdim=True)
    images = gray + MOST_SATURATED * saturation * (images - gray)
    levels = (2 * numbers[:, 3:, None, None] - 1) / 3
    return images * (1 + strength * (2 * contrast - 1)) + strength * (2 * brightness - 1 + levels)


def info_nce(one: Float[Tensor, "b q"], two: Float[Tensor, "b q"], temperature: float) -> Float[Tensor, ""]:
    """Cross-entropy of finding each vector's partner among all others (SimCLR, equation 1), in fp32.

    Args:
        one: A vector for the first view of each image.
        two: For the second views.
        temperature: Of the cosine similarities.
    """
    views = F.normalize(torch.cat([one, two]).float(), dim=1)
    itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    similarities = (views @ views.T / temperature).masked_fill(itself, -math.inf)
    partners = torch.arange(len(views), device=views.device).roll(len(one))
    return F.cross_entropy(similarities, partners)
