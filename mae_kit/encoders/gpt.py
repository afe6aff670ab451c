"""iGPT's transformer behind the contract of the encoders."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mae_kit.configured import Configured
from mae_kit.encoders.completion import complete
from mae_kit.encoders.image_gpt import ImageGPT
from mae_kit.encoders.timm_models import create
from mae_kit.errors import UserError


class GPT(Configured):
    """A transformer over pixels, a token each, that knows colors by a palette.

    Args:
        name: igpt_s, igpt_m or igpt_l.
        img_size: Height and width in pixels, one number for a square (paper: 32, 48 or 64).
        in_chans: Channels of the images.
        colors: Of the palette (paper: 512).
        embed_dim: Width of the tokens; by default the model's own.
        depth: Number of blocks; by default the model's own.
        num_heads: Attention heads; by default the model's own.
        causal: Whether a token sees those before it alone; false for the paper's BERT variant.

    Raises:
        UserError: There is no such model.
    """

    model: ImageGPT
    prefix, has_class_token = 0, False

    def __init__(
        self,
        name: str = "igpt_s",
        img_size: int | list[int] = 32,
        in_chans: int = 3,
        colors: int = 512,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        causal: bool = True,
    ):
        super().__init__()
        self.name = name
        given = {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads}
        always = {"img_size": img_size, "in_chans": in_chans, "colors": colors, "causal": causal}
        self.model_args: dict[str, Any] = {k: v for k, v in given.items() if v is not None} | always
        self.model = _create(name, self.model_args)
        self.image_size = self.grid = self.cells = self.model.img_size
        self.patch_size = self.stride = (1, 1)
        self.dim = self.embed_dim = self.model.embed_dim
        self.channels, self.causal, self.depth = in_chans, causal, len(self.model.blocks)

    def fit_palette(self, images: Float[Tensor, "m c h w"]) -> None:
        """Find the palette in images, normalized as those to come.

        Raises:
            UserError: They have fewer colors.
        """
        self.model.fit_palette(images)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """All tokens of the whole image, after the final norm: nothing hidden."""
        return self.model.forward_features(images)

    def layers(self, images: Float[Tensor, "b c h w"], numbers: Sequence[int]) -> list[Float[Tensor, "b n d"]]:
        """All tokens after some of the blocks, counted from 1 and ascending, each through the norm that follows it: for
        a linear probe those in the middle are best (paper, figure 2).
        """
        return self.model.encode_layers(self.model.enter(self.model.codes(images)), numbers)

    def fill(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], token: Float[Tensor, " d"]
    ) -> Float[Tensor, "b n d"]:
        """All tokens, `token` in place of the embedding of each hidden pixel; not if causal."""
        return self.model.fill(self.model.codes(images), hidden, token)

    def complete(
        self, images: Float[Tensor, "b c h w"], given: int, chances: Float[Tensor, "b n"]
    ) -> Int64[Tensor, "b n"]:
        """The colors of the first `given` pixels, and of the others as the chances in [0, 1) draw them."""
        return complete(self.model, self.model.codes(images), given, chances)


def _create(name: str, model_args: dict[str, Any]) -> ImageGPT:
    model = create(name, model_args, "igpt_*")
    if type(model) is not ImageGPT:
        raise UserError("gpt.create", f"encoder name {name!r} is not an iGPT", "choose igpt_s, igpt_m or igpt_l")
    return model
