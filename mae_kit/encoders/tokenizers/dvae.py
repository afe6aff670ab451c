"""The discrete VAE of DALL-E (Ramesh et al., "Zero-Shot Text-to-Image Generation", ICML 2021, appendix A)."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from mae_kit.classes.configured import Configured
from mae_kit.encoders.patches import grid_of
from mae_kit.encoders.timm_models import MOST_BLOCKS
from mae_kit.errors import UserError

MARGIN = 0.1  # colors 0..1 become .1 to .9, whose logits are finite (appendix A.3)
FINEST = -math.log(255)  # of the log of Laplace's scale: no finer than a level of 8 bits
ENCODER_KERNELS, DECODER_KERNELS = (3, 3, 3, 1), (1, 3, 3, 3)


class Evidence(NamedTuple):
    """The parts of the loss: a bound on the likelihood of the images, and how evenly the codes are used.

    Attributes:
        error: Negative log-likelihood, a mean over all channels of all pixels.
        divergence: Kullback-Leibler divergence of each patch's distribution over codes from the uniform one, a mean.
        imbalance: The same divergence of the mean of these distributions: 0 if all codes are used equally (the
            diversity loss of wav2vec 2.0, Baevski et al., NeurIPS 2020, equation 4).
    """

    error: Float[Tensor, ""]
    divergence: Float[Tensor, ""]
    imbalance: Float[Tensor, ""]


class DVAE(Configured):
    """A tokenizer for images of any size: maps every patch to a code of a codebook, and codes back to an image.

    Args:
        codes: Size of the codebook (paper: 8192).
        stride: Side in pixels of the patch that one code stands for, a power of two (paper: 8).
        in_chans: Channels of the images.
        width: Channels of the first group of blocks; they double from group to group (paper: 256).
        blocks: Residual blocks in each group (paper: 2).
        code_dim: Width of a code's embedding in the decoder (paper: 128).

    Raises:
        UserError: The stride is not a power of two, or there are too few codes, channels or blocks, or too many blocks.

    Example:
        >>> import torch, mae_kit as mk
        >>> tokenizer = mk.DVAE(codes=16, width=8, blocks=1, code_dim=8)
        >>> codes = tokenizer.encode(torch.rand(2, 3, 32, 32))  # 4 x 4 patches of 8 pixels
        >>> tokenizer.decode(codes, (4, 4)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        codes: int = 8192,
        stride: int = 8,
        in_chans: int = 3,
        width: int = 256,
        blocks: int = 2,
        code_dim: int = 128,
    ):
        super().__init__()
        if stride < 1 or stride & (stride - 1):
            raise UserError("tokenizer.stride", f"stride {stride} is not a power of two", "choose 8 or 16")
        if codes < 2 or width < 4 or not 1 <= blocks <= MOST_BLOCKS:
            what = f"codes {codes}, width {width}, blocks {blocks}: at least 2, 4 and 1, at most {MOST_BLOCKS} blocks"
            raise UserError("tokenizer.codes", what, "choose about 8192, 256 and 2")
        self.codebook, self.stride, self.channels = codes, (stride, stride), in_chans
        widths = [width * 2**i for i in range(stride.bit_length())]
        self.encoder = nn.Sequential(
            _convolution(in_chans, width, 7),
            *_groups(width, widths, blocks, ENCODER_KERNELS, lambda: nn.MaxPool2d(2)),
            nn.ReLU(),
            _convolution(widths[-1], codes, 1),
        )
        self.decoder = nn.Sequential(
            _convolution(codes, code_dim, 1),
            *_groups(code_dim, widths[::-1], blocks, DECODER_KERNELS, lambda: nn.Upsample(scale_factor=2)),
            nn.ReLU(),
            _convolution(width, 2 * in_chans, 1),
        )

    def logits(self, colors: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k y x"]:
        """Compute the logits of k codes for each patch of images in 0..1."""
        return self.encoder(_squeeze(colors))

    def grid_of(self, colors: Float[Tensor, "b c h w"]) -> tuple[int, int]:
        """Count the rows and columns of codes."""
        return grid_of((colors.shape[2], colors.shape[3]), self.stride)

    def encode(self, colors: Float[Tensor, "b c h w"]) -> Int64[Tensor, "b n"]:
        """Find the most likely code of each patch, row by row."""
        return self.logits(colors).argmax(dim=1).flatten(1)

    def decode(self, codes: Int64[Tensor, "b n"], grid: tuple[int, int]) -> Float[Tensor, "b c h w"]:
        """Reconstruct the images that codes stand for, in 0..1."""
        table: nn.Conv2d = self.decoder[0]  # type: ignore[assignment]
        looked_up = F.embedding(codes.unflatten(1, grid), table.weight.flatten(1).T)  # b y x d
        embedded = looked_up.movedim(3, 1) + table.bias.view(1, -1, 1, 1)  # type: ignore[union-attr]
        mean, _ = self.decoder[1:](embedded).float().chunk(2, dim=1)
        return ((mean.sigmoid() - MARGIN) / (1 - 2 * MARGIN)).clamp(0, 1)

    def forward(
        self, colors: Float[Tensor, "b c h w"], temperature: float, hard: bool = False, noise: float = 1.0
    ) -> Evidence:
        """Compute the parts of the loss, with codes drawn by Gumbel-softmax.

        Args:
            colors: Images in 0..1.
            temperature: Above 0; the lower, the closer the drawn codes are to one-hot.
            hard: Draw one-hot codes, with the gradient of the soft ones (straight-through; Jang et al., ICLR 2017).
            noise: Scale of the Gumbel noise; with 0 the most likely code is taken.
        """
        logits = self.logits(colors).float()
        mean, log_scale = self.decoder(_draw(logits, temperature, hard, noise)).float().chunk(2, dim=1)
        error = _negative_log_likelihood(_squeeze(colors.float()), mean, log_scale.clamp_min(FINEST))
        log_probs = logits.log_softmax(dim=1)
        mean_log_probs = log_probs.logsumexp(dim=(0, 2, 3), keepdim=True) - math.log(log_probs[:, 0].numel())
        parts = (error, _from_uniform(log_probs), _from_uniform(mean_log_probs))
        return Evidence(*(part.mean() for part in parts))


def _draw(logits: Float[Tensor, "b k y x"], temperature: float, hard: bool, noise: float) -> Float[Tensor, "b k y x"]:
    """Draw codes by Gumbel-softmax; torch's own has no scale of the noise."""
    gumbel = -torch.empty_like(logits).exponential_().log()
    soft = ((logits + noise * gumbel) / temperature).softmax(dim=1)
    if not hard:
        return soft
    best = torch.zeros_like(soft).scatter_(1, soft.argmax(dim=1, keepdim=True), 1.0)
    return best - soft.detach() + soft


def _from_uniform(log_probs: Float[Tensor, "b k y x"]) -> Float[Tensor, "b y x"]:
    """Compute the Kullback-Leibler divergence of distributions over k codes from the uniform one.

    Args:
        log_probs: Log-probabilities; the gradient at a probability of 0 would not be finite.
    """
    return math.log(log_probs.shape[1]) + (log_probs.exp() * log_probs).sum(dim=1)


class Block(nn.Module):
    """A residual block of four convolutions with a bottleneck of a quarter."""

    def __init__(self, inputs: int, outputs: int, kernels: tuple[int, ...], gain: float):
        super().__init__()
        self.gain = gain
        widths = [inputs, *[outputs // 4] * 3, outputs]
        layers: list[nn.Module] = []
        for i, kernel in enumerate(kernels):
            layers += [nn.ReLU(), _convolution(widths[i], widths[i + 1], kernel)]
        self.path = nn.Sequential(*layers)
        self.skip = nn.Identity() if inputs == outputs else _convolution(inputs, outputs, 1)

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b e h w"]:
        return self.skip(x) + self.gain * self.path(x)


def _groups(
    inputs: int, widths: list[int], blocks: int, kernels: tuple[int, ...], between: Callable[[], nn.Module]
) -> list[nn.Module]:
    """Stack blocks of each width, with a change of resolution in between."""
    layers: list[nn.Module] = []
    gain = (len(widths) * blocks) ** -2
    for i, width in enumerate(widths):
        layers += [between()] if i else []
        layers += [Block(inputs if j == 0 else width, width, kernels, gain) for j in range(blocks)]
        inputs = width
    return layers


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.normal_(layer.weight, std=(inputs * kernel**2) ** -0.5)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def _squeeze(colors: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Map colors to .1 to .9, channels last in memory: these convolutions run 1.6 times as fast on a CPU."""
    return ((1 - 2 * MARGIN) * colors + MARGIN).contiguous(memory_format=torch.channels_last)


def _negative_log_likelihood(
    values: Float[Tensor, "b c h w"], mean: Float[Tensor, "b c h w"], log_scale: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    """Score values in 0..1 under the logit-Laplace distribution (appendix A.3)."""
    distance = (values.logit() - mean).abs()
    return math.log(2) + log_scale + (values * (1 - values)).log() + distance * (-log_scale).exp()
