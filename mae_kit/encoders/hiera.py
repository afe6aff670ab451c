"""timm's Hiera, with its way of hiding patches: whole mask units are dropped, and it needs no more than that."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from timm.models.hiera import Hiera as TimmHiera
from torch import Tensor

from mae_kit.configured import Configured
from mae_kit.encoders.timm_models import create, pair, stochastic_depth
from mae_kit.errors import UserError
from mae_kit.masking import visible_indices
from mae_kit.patches import grid_of

POOLING = 2  # a side, in each stage that pools


class Hiera(Configured):
    """A timm Hiera without its head.

    A mask unit is what the stages would pool into one token if all did, 32 x 32 pixels with four stages; attention of
    the first stages stays within it. The last norm is in the encoder's file but has no part in pretraining.

    Args:
        name: timm's name of the model, for example hiera_base_224.
        img_size: Height and width in pixels, one number for a square; by default the model's own.
        in_chans: Channels of the images.
        embed_dim: Width of the first stage; each of the following has twice the width of the one before.
        num_heads: Attention heads of the first stage; they double, too.
        stages: Blocks of each stage; by default the model's own.
        q_pool: Stages that pool, which needs no weights; in pretraining one less than in fine-tuning (hiera_mae.py: 2),
            so that a mask unit ends as four cells.
        drop_path: Stochastic depth rate of the last block, 0 to 1 (paper: 0 if tiny or small, .2 of base models); it is
            not part of the encoder's file.

    Attributes:
        unit: Rows and columns of cells in a mask unit.
        widths: Of the stages that pool.

    Raises:
        UserError: timm knows no such Hiera, its heads do not divide its width, or its mask unit not the image.
    """

    prefix, has_class_token = 0, False

    def __init__(
        self,
        name: str = "hiera_tiny_224",
        img_size: int | list[int] | None = None,
        in_chans: int = 3,
        embed_dim: int | None = None,
        num_heads: int | None = None,
        stages: list[int] | None = None,
        q_pool: int = 2,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.name = name
        given = {"img_size": img_size, "embed_dim": embed_dim, "num_heads": num_heads, "stages": stages}
        self.model_args = {k: v for k, v in given.items() if v is not None} | {"in_chans": in_chans, "q_pool": q_pool}
        if stages is not None:
            self.model_args["mask_unit_size"] = [POOLING ** (len(stages) - 1)] * 2
        self.model = _create(name, self.model_args | stochastic_depth(drop_path))
        first = self.model.blocks[0]
        if first.dim_out % first.attn.heads:
            raise UserError(
                "hiera.unusable",
                f"num_heads {first.attn.heads} does not divide embed_dim {first.dim_out}",
                "choose another",
            )
        rows, columns = self.model.tokens_spatial_shape
        height, width = self.model.patch_stride
        self.image_size: tuple[int, int] = (rows * height, columns * width)
        side = self.model.mask_unit_size[0]
        grid_of(self.image_size if img_size is None else pair(img_size), (side * height, side * width))
        pooled = POOLING**q_pool
        self.unit: tuple[int, int] = (side // pooled, side // pooled)
        self.patch_size = self.stride = height * pooled, width * pooled
        self.grid = self.cells = rows // pooled, columns // pooled
        self.dim = self.embed_dim = int(self.model.num_features)
        self.widths: list[int] = [self.model.blocks[end].dim_out for end in self.model.stage_ends[:q_pool]]
        self.channels, self.depth = in_chans, len(self.model.stage_ends)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """The cells of the last stage, row by row: nothing hidden."""
        x = self.model.forward_features(images)
        return self.model.reroll(x, len(self.model.blocks) - 1).flatten(1, 2)

    def layers(self, images: Float[Tensor, "b c h w"], numbers: Sequence[int]) -> list[Float[Tensor, "b _ _"]]:
        """The cells of some of the stages, counted from 1 and ascending."""
        found: Any = self.model.forward_intermediates(
            images, indices=[number - 1 for number in numbers], output_fmt="NHWC", intermediates_only=True
        )
        return [stage.flatten(1, 2) for stage in found]

    def drop(self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"]) -> list[Float[Tensor, "b u _ _ _"]]:
        """The maps of the visible mask units, in their order, out of each stage before it pools, and out of the last.

        Args:
            images: Normalized.
            hidden: Whole mask units, the same count in every row.
        """
        seen = ~self._units(hidden)
        _, maps = self.model.forward_features(images, mask=seen, return_intermediates=True)
        return [*maps[: self.model.q_pool], maps[-1]]

    def places(self, hidden: Bool[Tensor, "b n"]) -> Int64[Tensor, "b v"]:
        """Which cell each token of the last of these maps is."""
        (rows, columns), (y, x) = self.grid, self.unit
        cells = torch.arange(rows * columns, device=hidden.device).reshape(rows // y, y, columns // x, x)
        by_unit = cells.transpose(1, 2).flatten(2).flatten(0, 1)
        return by_unit[visible_indices(self._units(hidden))].flatten(1)

    def _units(self, hidden: Bool[Tensor, "b n"]) -> Bool[Tensor, "b u"]:
        return hidden.unflatten(1, self.grid)[:, :: self.unit[0], :: self.unit[1]].flatten(1)


def _create(name: str, model_args: dict[str, Any]) -> Any:
    model = create(name, model_args, "hiera_*_224")
    if type(model) is not TimmHiera:
        raise UserError("hiera.create", f"encoder name {name!r} is not a Hiera", "choose one of timm's hiera_* models")
    model.head.requires_grad_(False)  # its norm: in the encoder's file, but behind the cells that we use
    return model
