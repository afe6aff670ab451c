"""timm's Hiera, with its way of hiding patches: whole mask units are dropped."""

from collections.abc import Sequence
from typing import Any

import timm.models.hiera
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mae_kit.encoders.encoder import Encoder, Size
from mae_kit.encoders.patches import grid_of, visible_indices
from mae_kit.encoders.timm_models import pair, stochastic_depth
from mae_kit.errors import UserError

POOLING = 2  # a side, in each stage that pools


class Hiera(Encoder):
    """A timm Hiera without its head (Ryali et al., ICML 2023).

    A mask unit is what would become one token if all stages pooled, 32 x 32 pixels with four stages; attention of the
    first stages stays within it. The final norm is in the encoder's file, but pretraining does not use it.

    Args:
        name: timm's name of the model, for example hiera_base_224.
        img_size: Height and width in pixels, one number for a square; by default the model's own.
        in_chans: Channels of the images.
        embed_dim: Width of the first stage; it doubles from stage to stage.
        num_heads: Attention heads of the first stage; they double with the width.
        stages: Blocks of each stage; by default the model's own.
        q_pool: Number of stages that pool, which needs no weights; one fewer in pretraining than in fine-tuning
            (hiera_mae.py: 2), so that a mask unit ends as four cells.
        drop_path: Stochastic depth rate of the last block, 0 to 1 (paper: .2 for base models, 0 for smaller ones); not
            part of the encoder's file.

    Attributes:
        unit: Rows and columns of cells in a mask unit.
        widths: Width of each stage that pools.

    Raises:
        UserError: timm has no such Hiera, its heads do not divide its width, or its mask unit does not divide the
            image.

    Example:
        >>> import torch, mae_kit as mk
        >>> hiera = mk.Hiera("hiera_tiny_224", img_size=64, embed_dim=24, stages=[1, 1, 2, 1])
        >>> hiera(torch.randn(2, 3, 64, 64)).shape  # 2 x 2 mask units of 2 x 2 cells
        torch.Size([2, 16, 192])
    """

    timm_class, family, examples = timm.models.hiera.Hiera, "Hiera", "hiera_*"
    unit: tuple[int, int]
    widths: list[int]

    def __init__(
        self,
        name: str = "hiera_tiny_224",
        img_size: Size | None = None,
        in_chans: int = 3,
        embed_dim: int | None = None,
        num_heads: int | None = None,
        stages: list[int] | None = None,
        q_pool: int = 2,
        drop_path: float = 0.0,
    ):
        sizes = {"img_size": img_size, "embed_dim": embed_dim, "num_heads": num_heads, "stages": stages}
        unit = {"mask_unit_size": [POOLING ** (len(stages) - 1)] * 2} if stages is not None else {}
        super().__init__(name, sizes | {"in_chans": in_chans, "q_pool": q_pool} | unit, stochastic_depth(drop_path))
        first, (height, width) = self.model.blocks[0], self.model.patch_stride
        if first.dim_out % first.attn.heads:
            what = f"num_heads {first.attn.heads} does not divide embed_dim {first.dim_out}"
            raise UserError("encoder.num_heads", what, "choose a divisor of embed_dim")
        side = self.model.mask_unit_size[0]
        grid_of(self.image_size if img_size is None else pair(img_size), (side * height, side * width))

    @classmethod
    def arguments_of(cls, model: Any) -> dict[str, Any]:
        (rows, columns), (height, width) = model.tokens_spatial_shape, model.patch_stride
        starts = [0, *(end + 1 for end in model.stage_ends[:-1])]
        return {
            "img_size": [rows * height, columns * width],
            "in_chans": model.in_chans,
            "embed_dim": model.patch_embed.proj.out_channels,
            "num_heads": model.blocks[0].attn.heads,
            "stages": [end + 1 - start for start, end in zip(starts, model.stage_ends, strict=True)],
            "q_pool": model.q_pool,
        }

    def prepare(self, fresh: bool) -> None:
        self.model.head.requires_grad_(False)  # its norm: in the encoder's file, but after the cells

    def read_sizes(self) -> None:
        (rows, columns), (height, width) = self.model.tokens_spatial_shape, self.model.patch_stride
        pooled, side = POOLING**self.model.q_pool, self.model.mask_unit_size[0]
        self.image_size = rows * height, columns * width
        self.unit = side // pooled, side // pooled
        self.patch_size = self.stride = height * pooled, width * pooled
        self.grid = self.cells = rows // pooled, columns // pooled
        self.dim = self.embed_dim = int(self.model.num_features)
        self.widths = [self.model.blocks[end].dim_out for end in self.model.stage_ends[: self.model.q_pool]]
        self.channels, self.depth = int(self.model.in_chans), len(self.model.stage_ends)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Encode whole images: the cells of the last stage, row by row."""
        x = self.model.forward_features(images)
        return self.model.reroll(x, len(self.model.blocks) - 1).flatten(1, 2)

    def layers(self, images: Float[Tensor, "b c h w"], numbers: Sequence[int]) -> list[Float[Tensor, "b _ _"]]:
        """Cells of some of the stages, row by row."""
        found: Any = self.model.forward_intermediates(
            images, indices=[number - 1 for number in numbers], output_fmt="NHWC", intermediates_only=True
        )
        return [stage.flatten(1, 2) for stage in found]

    def drop(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], visible: int | None = None
    ) -> list[Float[Tensor, "b u _ _ _"]]:
        """Encode the visible mask units alone: their maps before each stage pools, and those of the last stage.

        Args:
            images: Normalized.
            hidden: Whole mask units, the same count in every row.
            visible: How many cells are visible in a row; None to count them, which waits for the device.
        """
        model, seen = self.model, self._visible_units(hidden, visible)
        shown = ~self._units(hidden).unflatten(1, model.mask_spatial_shape)[:, None]
        x = model.unroll(model._pos_embed(model.patch_embed(images, mask=shown)))
        x = x.unflatten(1, (model.mu_size, -1)).take_along_dim(seen[:, None, :, None], dim=2).flatten(1, 2)
        maps = []
        for number, block in enumerate(model.blocks):
            x = block(x)
            if number in (*model.stage_ends[: model.q_pool], model.stage_ends[-1]):
                maps.append(model.reroll(x, number, mask=seen))
        return maps

    def places(self, hidden: Bool[Tensor, "b n"], visible: int | None = None) -> Int64[Tensor, "b v"]:
        """Index of the cell of each token in the last of these maps.

        Args:
            hidden: Whole mask units, the same count in every row.
            visible: How many cells are visible in a row; None to count them, which waits for the device.
        """
        (rows, columns), (y, x) = self.grid, self.unit
        cells = torch.arange(rows * columns, device=hidden.device).reshape(rows // y, y, columns // x, x)
        by_unit = cells.transpose(1, 2).flatten(2).flatten(0, 1)
        return by_unit[self._visible_units(hidden, visible)].flatten(1)

    def _visible_units(self, hidden: Bool[Tensor, "b n"], visible: int | None) -> Int64[Tensor, "b v"]:
        units = None if visible is None else visible // (self.unit[0] * self.unit[1])
        return visible_indices(self._units(hidden), units)

    def _units(self, hidden: Bool[Tensor, "b n"]) -> Bool[Tensor, "b u"]:
        return hidden.unflatten(1, self.grid)[:, :: self.unit[0], :: self.unit[1]].flatten(1)
