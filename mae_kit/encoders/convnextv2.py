"""timm's ConvNeXt V2, with FCMAE's way of hiding patches: a sparse network made of dense convolutions."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from timm.layers import GlobalResponseNormMlp
from timm.models.convnext import ConvNeXt
from torch import Tensor

from mae_kit.configured import Configured
from mae_kit.encoders.timm_models import create, pair
from mae_kit.errors import UserError
from mae_kit.masking import visible_indices
from mae_kit.patches import grid_of


class ConvNeXtV2(Configured):
    """A timm ConvNeXt V2 without its head.

    The last norm, which is behind the pooling, is in the encoder's file but has no part in pretraining (fcmae.py).

    Args:
        name: timm's name of the model, for example convnextv2_base.
        img_size: Height and width in pixels, one number for a square; by default the model's own.
        patch_size: Side in pixels of what the stem embeds; by default the model's own, 4.
        output_stride: 8, 16 or 32: pixels a side of a cell of the last stage, at most; stages that would make it larger
            are dilated. Smaller images have more cells to hide so.
        in_chans: Channels of the images.
        depths: Blocks of each of the four stages; by default the model's own.
        dims: Width of each stage; by default the model's own.
        kernel_sizes: Side of each stage's depthwise convolutions in positions; by default 7. In a dilated stage 3 reach
            as far as 7 in a map of 4 x 4, at a quarter of the cost.

    Raises:
        UserError: timm knows no such ConvNeXt V2, its stride does not divide the image, or a kernel is even.
    """

    prefix, has_class_token = 0, False

    def __init__(
        self,
        name: str = "convnextv2_tiny",
        img_size: int | list[int] | None = None,
        patch_size: int | None = None,
        output_stride: int | None = None,
        in_chans: int = 3,
        depths: list[int] | None = None,
        dims: list[int] | None = None,
        kernel_sizes: list[int] | None = None,
    ):
        super().__init__()
        self.name = name
        if any(side < 1 or side % 2 == 0 for side in kernel_sizes or []):
            raise UserError(
                "convnextv2.unusable", f"kernel_sizes {kernel_sizes}: a side has a middle", "give odd numbers, as 7"
            )
        given = {
            "patch_size": patch_size,
            "output_stride": output_stride,
            "depths": depths,
            "dims": dims,
            "kernel_sizes": kernel_sizes,
        }
        self.model_args = {k: v for k, v in given.items() if v is not None} | {"in_chans": in_chans}
        self.model = _create(name, self.model_args)
        self.image_size = pair(img_size or self.model.pretrained_cfg["input_size"][1:])
        side = int(self.model.feature_info[-1]["reduction"])
        self.patch_size = self.stride = side, side
        self.grid = self.cells = grid_of(self.image_size, self.stride)
        self.dim = self.embed_dim = int(self.model.num_features)
        self.channels, self.depth = in_chans, len(self.model.stages)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """The cells of the last stage: nothing hidden."""
        return _rows(self.model.forward_features(images))

    def layers(self, images: Float[Tensor, "b c h w"], numbers: Sequence[int]) -> list[Float[Tensor, "b _ _"]]:
        """The cells of some of the stages, counted from 1 and ascending, each coarser and wider than the one before."""
        found: Any = self.model.forward_intermediates(
            images, [number - 1 for number in numbers], norm=True, stop_early=True, intermediates_only=True
        )
        return [_rows(stage) for stage in found]

    def zero(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], count: int | None = None
    ) -> Float[Tensor, "b n d"]:
        """The cells of the last stage, zero where hidden: what a sparse convolution computes (FCMAE, section 3).

        Hidden positions are zero before every convolution, which so takes nothing from them; all else, the response
        normalization over the positions of a sample too, is computed at the visible positions alone.

        Args:
            images: Normalized.
            hidden: The same count in every row.
            count: How many are visible in a row; None to count them, which waits for the device.
        """
        at = hidden.unflatten(1, self.grid)
        x = images
        for layer in self.model.stem:
            x = _zeroed(layer(x), at)
        for stage in self.model.stages:
            for layer in stage.downsample.children():
                x = _zeroed(layer(x), at)
            x = _encode(stage.blocks, x, at, count)
        return _rows(self.model.norm_pre(x))


def _encode(
    blocks: Any, x: Float[Tensor, "b d h w"], hidden: Bool[Tensor, "b y x"], count: int | None
) -> Float[Tensor, "b d h w"]:
    """The blocks of a stage: depthwise convolutions over the whole map, all else at the visible positions."""
    size = x.shape[2:]
    in_a_cell = size.numel() // hidden[0].numel()
    visible = visible_indices(_at_size(hidden, size).flatten(1), None if count is None else count * in_a_cell)
    tokens = _take(x, visible)
    for block in blocks:
        around = _take(block.conv_dw(_put(tokens, visible, size)), visible)
        tokens = tokens + block.drop_path(_mix(block, around))
    return _put(tokens, visible, size)


def _mix(block: Any, tokens: Float[Tensor, "b v d"]) -> Float[Tensor, "b v d"]:
    """Norm and layers of a block on a map one position wide: its response normalization is over what it is given."""
    if block.use_conv_mlp:
        return block.mlp(block.norm(tokens.mT[..., None]))[..., 0].mT
    return block.mlp(block.norm(tokens[:, :, None]))[:, :, 0]


def _take(x: Float[Tensor, "b d h w"], where: Int64[Tensor, "b v"]) -> Float[Tensor, "b v d"]:
    return _rows(x).gather(1, where[:, :, None].expand(-1, -1, x.shape[1]))


def _put(tokens: Float[Tensor, "b v d"], where: Int64[Tensor, "b v"], size: torch.Size) -> Float[Tensor, "b d h w"]:
    """A map with the tokens in their places and zero elsewhere, in the memory order that convolutions like."""
    nothing = tokens.new_zeros(len(tokens), size[0] * size[1], tokens.shape[2])
    placed = nothing.scatter(1, where[:, :, None].expand_as(tokens), tokens)
    return placed.unflatten(1, size).permute(0, 3, 1, 2)


def _zeroed(x: Float[Tensor, "b d h w"], hidden: Bool[Tensor, "b y x"]) -> Float[Tensor, "b d h w"]:
    return x.masked_fill(_at_size(hidden, x.shape[2:])[:, None], 0.0)


def _at_size(hidden: Bool[Tensor, "b y x"], size: torch.Size) -> Bool[Tensor, "b h w"]:
    """Every position of a map that is finer than the mask, which it is a multiple of."""
    return hidden.repeat_interleave(size[0] // hidden.shape[1], 1).repeat_interleave(size[1] // hidden.shape[2], 2)


def _rows(x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b n d"]:
    return x.flatten(2).transpose(1, 2)


def _create(name: str, model_args: dict[str, Any]) -> Any:
    model = create(name, model_args, "convnextv2_*")
    stages: Any = model.stages if type(model) is ConvNeXt else None
    if stages is None or not isinstance(stages[0].blocks[0].mlp, GlobalResponseNormMlp):
        raise UserError(
            "convnextv2.create",
            f"encoder name {name!r} is not a ConvNeXt V2",
            "choose one of timm's convnextv2_* models",
        )
    model.head.requires_grad_(False)  # its norm: in the encoder's file, but behind the cells that we use
    return model
