"""The contract of a pretraining objective.

A new objective is one file here and one recipe; tests, commands and reports find it. It writes a typed constructor,
whose arguments are the recipe's keys and whose docstring is their help, `compare`, and `pixels`. The constructor hands
the encoder to this one, sets `hide` and its own modules, and ends with `initialize()`.

Axis letters of all types: b images in a batch, c channels, h and w pixels, n patches, p pixels a side of a patch,
q values of a patch, d embedding width, k classes.
"""

import importlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from mae_kit.classes.hub import HubModule
from mae_kit.encoders import Encoder
from mae_kit.errors import UserError
from mae_kit.objectives.masking import MaskGenerator


class Outcome(NamedTuple):
    """What an objective returns.

    Attributes:
        loss: scalar, fp32.
        logs: scalars to log beside the loss.
        hidden: Bool [b n], True = hidden.
        prediction: [b n p*p*c] in the space of the target.
    """

    loss: Float[Tensor, ""]
    logs: dict[str, Tensor]
    hidden: Bool[Tensor, "b n"]
    prediction: Float[Tensor, "b n q"]


class Objective(HubModule):
    """A pretraining objective: an encoder, and a loss on what was hidden from it.

    Attributes:
        encoder: The part that is kept after pretraining.
        hide: Draws which patches are hidden, from the seeds of the samples.
        decoder: Predicts patches from encoded ones; None where a linear head does.
        reconstructs: Whether the loss is the squared error to `target(images)` per pixel, so that losses by patch and
            by mask ratio can be plotted.
        contrasts: Whether the loss tells the images of a batch apart, so that none may come twice.
        no_decay: Names of parameters without weight decay, besides biases and other one-dimensional ones.
        fit_images: Number of images that `fit` needs before training; 0 = none.
        mean: Mean of each channel that images are normalized with, in 0..1; None until `set_statistics`.
        std: Standard deviation of each channel.

    Example:
        >>> import torch, mae_kit as mk
        >>> class Blurred(mk.MAE):
        ...     def target(self, images):
        ...         return super().target(torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1))
        >>> vit = mk.ViT("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2)
        >>> blurred = Blurred(vit, decoder_dim=32, decoder_depth=1, decoder_heads=2)
        >>> blurred(torch.randn(2, 3, 32, 32)).prediction.shape  # 8 x 8 x 3 values for each of 4 x 4 patches
        torch.Size([2, 16, 192])
    """

    encoder: Encoder
    hide: MaskGenerator
    decoder: nn.Module | None
    reconstructs: bool = False
    contrasts: bool = False
    no_decay: tuple[str, ...] = ()
    fit_images: int = 0
    mean: Tensor | None
    std: Tensor | None

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, None
        self.register_buffer("mean", None, persistent=False)
        self.register_buffer("std", None, persistent=False)

    def initialize(self) -> None:
        """Initialize as the paper does, at the end of a constructor: own modules, and the encoder if it is fresh.

        Weights that the encoder was given stay. `init_weights` draws everything again.
        """
        self.initialize_weights(self.encoder.fresh)
        self.encoder.model.fresh = False

    def initialize_weights(self, encoder: bool) -> None:
        """Draw the weights of the objective's own modules.

        Args:
            encoder: Also draw the encoder's, where the paper's initialization differs from the encoder's own.
        """

    def set_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set what images are normalized with; objectives that predict colors need it.

        Args:
            mean: Of each channel, in 0..1.
            std: Of each channel.
        """
        self.encoder.set_statistics(mean, std)
        for name, values in (("mean", mean), ("std", std)):
            device = next(self.parameters()).device
            setattr(self, name, torch.tensor(list(values), device=device)[:, None, None])

    def colors(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Undo the normalization: colors in 0..1.

        Raises:
            UserError: The statistics were never set.
        """
        mean, std = self._statistics()
        return images.float() * std + mean

    def normalize(self, colors: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalize colors in 0..1; the inverse of `colors`.

        Raises:
            UserError: The statistics were never set.
        """
        mean, std = self._statistics()
        return (colors - mean) / std

    def _statistics(self) -> tuple[Tensor, Tensor]:
        if self.mean is None or self.std is None:
            what = f"{type(self).__name__} needs the mean and std that images are normalized with"
            raise UserError("objective.statistics", what, "call set_statistics(mean, std) first")
        return self.mean, self.std

    def write(self, folder: Path) -> None:
        self._statistics()
        native = importlib.import_module("mae_kit.weights.native")  # which imports the objectives
        encoder, statistics = self.encoder, self.encoder.statistics or ([], [])
        about = {"objective": type(self).__name__, "step": 0, "image_size": encoder.image_size}
        config = native.ModelConfig(encoder.name, encoder.model_args, *statistics, **about)
        native.save_model(folder, self, config)
        native.save_encoder(folder, encoder.model.state_dict(), config)

    @classmethod
    def read(cls, folder: Path, **options: Any) -> "Objective":
        return importlib.import_module("mae_kit.weights.native").load_model(folder, **options)

    def fit(self, images: Float[Tensor, "m c h w"]) -> None:
        """Compute from normalized images what gradients do not train, such as a palette; most objectives do nothing."""

    def forward(self, images: Float[Tensor, "b c h w"], seeds: Int64[Tensor, " b"] | None = None) -> Outcome:
        """Compute loss and prediction of a batch.

        Args:
            images: Normalized, float.
            seeds: One for each sample. What is hidden is a function of it, so that a resumed run, another number of
                devices or a smaller micro-batch hides the same patches. None: torch's generator draws them.

        Raises:
            UserError: The objective needs statistics or `fit` first.
        """
        return self.compare(images, self.hide(drawn(seeds, images)), self.hide.visible)

    @abstractmethod
    def compare(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], visible: int | None = None
    ) -> Outcome:
        """Compute loss and prediction under a given mask.

        Args:
            images: Normalized, float.
            hidden: True = hidden.
            visible: How many patches are visible in every row, if known: counting them waits for the device.
        """

    @abstractmethod
    def pixels(self, prediction: Float[Tensor, "b n q"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Show a prediction as normalized images."""

    def target_pixels(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Show a perfect prediction; the images themselves, unless the target is less than all pixels."""
        return images

    def reconstruct(
        self, images: Float[Tensor, "b c h w"], seeds: Int64[Tensor, " b"] | None = None
    ) -> tuple[Bool[Tensor, "b n"], Float[Tensor, "b c h w"]]:
        """Return what a plot shows: which patches are hidden, and the prediction as normalized images."""
        outcome = self(images, seeds)
        return outcome.hidden, self.pixels(outcome.prediction, images)


def drawn(seeds: Int64[Tensor, " b"] | None, images: Float[Tensor, "b c h w"]) -> Int64[Tensor, " b"]:
    """Draw a seed for each image, if none are given."""
    return torch.randint(2**63 - 1, (len(images),), device=images.device) if seeds is None else seeds


def initialize_head(mask_token: nn.Parameter, head: nn.Linear) -> None:
    """Draw a mask token and a linear head from a normal distribution of deviation .02, without bias."""
    for tensor in (mask_token, head.weight):
        nn.init.trunc_normal_(tensor, std=0.02)
    nn.init.zeros_(head.bias)
