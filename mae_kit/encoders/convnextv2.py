"""timm's ConvNeXt V2, with FCMAE's way of hiding patches: a sparse network made of dense convolutions."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from timm.layers import GlobalResponseNormMlp
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from mae_kit.encoders.encoder import Encoder, Size
from mae_kit.encoders.patches import grid_of, visible_indices
from mae_kit.encoders.timm_models import pair
from mae_kit.errors import UserError


class ConvNeXtV2(Encoder):
    """A timm ConvNeXt V2 without its head (Woo et al., CVPR 2023).

    The final norm comes after the pooling: it is in the encoder's file, but pretraining does not use it (fcmae.py).

    Args:
        name: timm's name of the model, for example convnextv2_base.
        img_size: Height and width in pixels, one number for a square; by default the model's own.
        patch_size: Stride of the stem in pixels; by default the model's own, 4.
        output_stride: 8, 16 or 32: the largest stride of the last stage; stages beyond it are dilated instead. A small
            image then still has enough cells to mask.
        in_chans: Channels of the images.
        depths: Blocks of each of the four stages; by default the model's own.
        dims: Width of each stage; by default the model's own.
        kernel_sizes: Side of each stage's depthwise kernels, odd; by default 7. In a dilated stage, 3 covers a 4 x 4
            map as 7 would, at a quarter of the cost.

    Raises:
        UserError: timm has no such ConvNeXt V2, its stride does not divide the image, or a kernel is even.

    Example:
        >>> import torch, mae_kit as mk
        >>> convnext = mk.ConvNeXtV2("convnextv2_atto", img_size=64, output_stride=16)
        >>> convnext(torch.randn(2, 3, 64, 64)).shape  # 4 x 4 cells
        torch.Size([2, 16, 320])
    """

    timm_class, family, examples = ConvNeXt, "ConvNeXt V2", "convnextv2_*"

    def __init__(
        self,
        name: str = "convnextv2_tiny",
        img_size: Size | None = None,
        patch_size: int | None = None,
        output_stride: int | None = None,
        in_chans: int = 3,
        depths: list[int] | None = None,
        dims: list[int] | None = None,
        kernel_sizes: list[int] | None = None,
    ):
        if any(side < 1 or side % 2 == 0 for side in kernel_sizes or []):
            what = f"kernel_sizes are {kernel_sizes}, but a kernel needs a center"
            raise UserError("encoder.kernel_sizes", what, "give odd numbers, for example 7")
        sizes = {"patch_size": patch_size, "output_stride": output_stride, "depths": depths, "dims": dims}
        super().__init__(name, sizes | {"kernel_sizes": kernel_sizes, "in_chans": in_chans})

    @classmethod
    def accepts(cls, model: nn.Module) -> bool:
        stages: Any = model.stages if type(model) is ConvNeXt else None
        return stages is not None and isinstance(stages[0].blocks[0].mlp, GlobalResponseNormMlp)

    @classmethod
    def arguments_of(cls, model: Any) -> dict[str, Any]:
        stem = model.stem[0]
        return {
            "img_size": list(model.pretrained_cfg["input_size"][1:]),
            "patch_size": stem.stride[0],
            "output_stride": int(model.feature_info[-1]["reduction"]),
            "in_chans": stem.in_channels,
            "depths": [len(stage.blocks) for stage in model.stages],
            "dims": [info["num_chs"] for info in model.feature_info],
            "kernel_sizes": [stage.blocks[0].conv_dw.kernel_size[0] for stage in model.stages],
        }

    def prepare(self, fresh: bool) -> None:
        self.model.head.requires_grad_(False)  # its norm: in the encoder's file, but after the cells

    def read_sizes(self) -> None:
        side = int(self.model.feature_info[-1]["reduction"])
        self.patch_size = self.stride = side, side
        self.dim = self.embed_dim = int(self.model.num_features)
        self.channels, self.depth = int(self.model.stem[0].in_channels), len(self.model.stages)
        self.image_size = pair(self.init_args.get("img_size") or self.model.pretrained_cfg["input_size"][1:])
        self.grid = self.cells = grid_of(self.image_size, self.stride)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Encode whole images: the cells of the last stage."""
        return _rows(self.model.forward_features(images))

    def layers(self, images: Float[Tensor, "b c h w"], numbers: Sequence[int]) -> list[Float[Tensor, "b _ _"]]:
        """Cells of some of the stages, each coarser and wider than the one before."""
        found: Any = self.model.forward_intermediates(
            images, [number - 1 for number in numbers], norm=True, stop_early=True, intermediates_only=True
        )
        return [_rows(stage) for stage in found]

    def zero(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], count: int | None = None
    ) -> Float[Tensor, "b n d"]:
        """Encode as a sparse convolution does (FCMAE, section 3): the cells of the last stage, zero where hidden.

        Hidden positions are zero before every convolution, so that nothing leaks from them; everything else, including
        the response normalization over the positions of a sample, is computed at the visible positions only.

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
        tokens = getattr(block, "sparse_forward", partial(sparse_forward, block))(tokens, visible, size)
    return _put(tokens, visible, size)


def sparse_forward(
    block: Any, tokens: Float[Tensor, "b v d"], visible: Int64[Tensor, "b v"], size: torch.Size
) -> Float[Tensor, "b v d"]:
    """Compute a block at the visible positions of a map."""
    around = _take(block.conv_dw(_put(tokens, visible, size)), visible)
    return tokens + block.drop_path(_mix(block, around))


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
