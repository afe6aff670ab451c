"""The contract of a pretraining objective."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mae_kit.configured import Configured
from mae_kit.encoders import Backbone
from mae_kit.tensors import Outcome


class Objective(Configured):
    """What a new objective writes: a typed constructor (the recipe's schema) and `forward`.

    Attributes:
        encoder: The part that is kept after pretraining.
        no_decay: Names of parameters that do not decay, beside biases and others of one dimension.
        preview: How many images it is shown before training, to `prepare` for them.
    """

    encoder: Backbone
    no_decay: tuple[str, ...] = ()
    preview: int = 0
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.set_statistics([0.0], [1.0])

    def set_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """What images are normalized with, one value a channel: targets that are colors need to know."""
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(list(values))[:, None, None], persistent=False)

    def colors(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalized images as they were before, 0..1."""
        return images.float() * self.std + self.mean

    def normalize(self, colors: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The inverse of `colors`."""
        return (colors - self.mean) / self.std

    def prepare(self, images: Float[Tensor, "m c h w"]) -> None:
        """Compute from some images, normalized, what is not learned."""

    @abstractmethod
    def forward(self, images: Float[Tensor, "b c h w"], keys: Int64[Tensor, " b"]) -> Outcome:
        """Loss and prediction of a batch.

        Args:
            images: Normalized, float.
            keys: The random key of each sample: what is hidden is a function of it, so that a resumed run, another
                number of devices or a smaller micro-batch hides the same patches.
        """

    @abstractmethod
    def pixels(self, prediction: Float[Tensor, "b n q"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """A prediction as images in the space of `images`, to be looked at."""

    def target_pixels(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """What a perfect prediction would be in `pixels`: the images, but for targets that tell something of them."""
        return images

    def reconstruct(
        self, images: Float[Tensor, "b c h w"], keys: Int64[Tensor, " b"]
    ) -> tuple[Bool[Tensor, "b n"], Float[Tensor, "b c h w"]]:
        """What a picture shows: the patches that are hidden, and images with the prediction in their places."""
        outcome = self(images, keys)
        return outcome.hidden, self.pixels(outcome.prediction, images)
