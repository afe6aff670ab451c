"""timm's Swin transformers, with SimMIM's way of hiding patches."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from mae_kit.encoders.encoder import Encoder, Size
from mae_kit.encoders.patches import grid_of


class Swin(Encoder):
    """A timm Swin transformer without its head (Liu et al., ICCV 2021).

    Args:
        name: timm's name of the model, for example swin_base_patch4_window7_224.
        img_size: Height and width in pixels, one number for a square; by default the model's own.
        window_size: Side of an attention window in patches; by default the model's own.
        in_chans: Channels of the images.
        embed_dim: Width of the first stage; it doubles from stage to stage.
        depths: Blocks of each stage; by default the model's own.
        num_heads: Attention heads of each stage; by default the model's own.

    Raises:
        UserError: timm has no such Swin, or its stride does not divide the image.

    Example:
        >>> import torch, mae_kit as mk
        >>> swin = mk.Swin(img_size=64, window_size=2, embed_dim=24, depths=[2, 2], num_heads=[1, 2])
        >>> swin(torch.randn(2, 3, 64, 64)).shape  # 8 x 8 cells of the last stage
        torch.Size([2, 64, 48])
    """

    timm_class, family, examples = SwinTransformer, "Swin transformer", "swin_*"
    mask_token_decays = False  # SimMIM, swin_transformer.py

    def __init__(
        self,
        name: str = "swin_tiny_patch4_window7_224",
        img_size: Size | None = None,
        window_size: int | None = None,
        in_chans: int = 3,
        embed_dim: int | None = None,
        depths: list[int] | None = None,
        num_heads: list[int] | None = None,
    ):
        sizes = {"img_size": img_size, "window_size": window_size, "embed_dim": embed_dim, "depths": depths}
        no_drop_path = {"drop_path_rate": 0.0}  # as in SimMIM's pretraining; timm's default is .1
        super().__init__(name, sizes | {"num_heads": num_heads, "in_chans": in_chans}, no_drop_path)

    @classmethod
    def arguments_of(cls, model: Any) -> dict[str, Any]:
        return {
            "img_size": list(model.patch_embed.img_size),
            "window_size": model.layers[0].blocks[0].window_size[0],
            "in_chans": model.patch_embed.proj.in_channels,
            "embed_dim": model.patch_embed.proj.out_channels,
            "depths": [len(stage.blocks) for stage in model.layers],
            "num_heads": [stage.blocks[0].attn.num_heads for stage in model.layers],
        }

    def read_sizes(self) -> None:
        embed: Any = self.model.patch_embed
        self.image_size, self.patch_size = tuple(embed.img_size), tuple(embed.patch_size)
        self.grid = grid_of(self.image_size, self.patch_size)
        merged = 2 ** (self.model.num_layers - 1)
        self.stride = self.patch_size[0] * merged, self.patch_size[1] * merged
        self.cells = grid_of(self.image_size, self.stride)
        self.dim, self.embed_dim = int(self.model.num_features), int(embed.proj.out_channels)
        self.channels, self.depth = int(embed.proj.in_channels), int(self.model.num_layers)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b m d"]:
        """Encode whole images: the cells of the last stage after the final norm."""
        return self.model.forward_features(images).flatten(1, 2)

    def layers(self, images: Float[Tensor, "b c h w"], numbers: Sequence[int]) -> list[Float[Tensor, "b _ _"]]:
        """Cells of some of the stages; only the last one goes through the final norm, which has its width."""
        found: Any = self.model.forward_intermediates(
            images, [number - 1 for number in numbers], norm=True, stop_early=True, intermediates_only=True
        )
        return [stage.flatten(2).mT for stage in found]

    def fill(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], token: Float[Tensor, " e"]
    ) -> Float[Tensor, "b m d"]:
        """Encode with `token` in place of each hidden patch's embedding (simmim.py): the cells of the last stage."""
        embedded = self.model.patch_embed(images)  # b rows columns e
        at = hidden.unflatten(1, self.grid)[..., None]
        x = self.model.layers(torch.where(at, token.to(embedded.dtype), embedded))
        return self.model.norm(x).flatten(1, 2)
