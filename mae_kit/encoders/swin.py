"""timm's Swin transformers, with SimMIM's way of hiding patches."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from mae_kit.configured import Configured
from mae_kit.encoders.timm_models import create
from mae_kit.errors import UserError
from mae_kit.patches import grid_of


class Swin(Configured):
    """A timm Swin transformer without its head.

    Args:
        name: timm's name of the model, for example swin_base_patch4_window7_224.
        img_size: Height and width in pixels, one number for a square; by default the model's own.
        window_size: Side of an attention window in patches; by default the model's own.
        in_chans: Channels of the images.
        embed_dim: Width of the first stage; each of the following has twice the width of the one before.
        depths: Blocks of each stage; by default the model's own.
        num_heads: Attention heads of each stage; by default the model's own.

    Raises:
        UserError: timm knows no such Swin, or its stride does not divide the image.
    """

    prefix, has_class_token = 0, False

    def __init__(
        self,
        name: str = "swin_tiny_patch4_window7_224",
        img_size: int | list[int] | None = None,
        window_size: int | None = None,
        in_chans: int = 3,
        embed_dim: int | None = None,
        depths: list[int] | None = None,
        num_heads: list[int] | None = None,
    ):
        super().__init__()
        self.name = name
        given = {
            "img_size": img_size,
            "window_size": window_size,
            "embed_dim": embed_dim,
            "depths": depths,
            "num_heads": num_heads,
        }
        self.model_args = {k: v for k, v in given.items() if v is not None} | {"in_chans": in_chans}
        self.model = _create(name, self.model_args | {"drop_path_rate": 0.0})  # SimMIM's too; timm's own are .1
        embed: Any = self.model.patch_embed
        self.image_size: tuple[int, int] = tuple(embed.img_size)
        self.patch_size: tuple[int, int] = tuple(embed.patch_size)
        self.grid = grid_of(self.image_size, self.patch_size)
        merged = 2 ** (self.model.num_layers - 1)
        self.stride = self.patch_size[0] * merged, self.patch_size[1] * merged
        self.cells = grid_of(self.image_size, self.stride)
        self.dim = int(self.model.num_features)
        self.embed_dim = int(embed.proj.out_channels)
        self.channels, self.depth = in_chans, int(self.model.num_layers)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b m d"]:
        """The cells of the last stage, after the final norm: nothing hidden."""
        return self.model.forward_features(images).flatten(1, 2)

    def layers(self, images: Float[Tensor, "b c h w"], numbers: Sequence[int]) -> list[Float[Tensor, "b _ _"]]:
        """The cells of some of the stages, counted from 1 and ascending, each narrower than the next; the final norm
        has the width of the last stage and is for that one alone.
        """
        found: Any = self.model.forward_intermediates(
            images, [number - 1 for number in numbers], norm=True, stop_early=True, intermediates_only=True
        )
        return [stage.flatten(2).mT for stage in found]

    def fill(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], token: Float[Tensor, " e"]
    ) -> Float[Tensor, "b m d"]:
        """The cells of the last stage, `token` in place of the embedding of each hidden patch (simmim.py)."""
        embedded = self.model.patch_embed(images)  # b rows columns e
        at = hidden.unflatten(1, self.grid)[..., None]
        x = self.model.layers(torch.where(at, token.to(embedded.dtype), embedded))
        return self.model.norm(x).flatten(1, 2)


def _create(name: str, model_args: dict) -> SwinTransformer:
    model = create(name, model_args, "swin_*_patch4_window7_224")
    if type(model) is not SwinTransformer:
        raise UserError(
            "swin.create", f"encoder name {name!r} is not a Swin transformer", "choose one of timm's swin_* models"
        )
    return model
