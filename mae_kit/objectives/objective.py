"""The contract of a pretraining objective."""

from abc import abstractmethod

from jaxtyping import Float, Int64
from torch import Tensor

from mae_kit.backbones.vit import ViT
from mae_kit.configured import Configured
from mae_kit.tensors import Outcome


class Objective(Configured):
    """What a new objective writes: a typed constructor (the recipe's schema) and `forward`.

    Attributes:
        encoder: The part that is kept after pretraining.
    """

    encoder: ViT

    @abstractmethod
    def forward(self, images: Float[Tensor, "b c h w"], keys: Int64[Tensor, " b"]) -> Outcome:
        """Loss and prediction of a batch.

        Args:
            images: Normalised, float.
            keys: The random key of each sample: what is hidden is a function of it, so that a resumed run, another
                number of devices or a smaller micro-batch hides the same patches.
        """

    @abstractmethod
    def pixels(self, prediction: Float[Tensor, "b n q"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """A prediction as images in the space of `images`, to be looked at."""
