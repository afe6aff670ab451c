"""timm's BEiT transformers, with one table of relative positions for all blocks while they are pretrained."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from timm.models.beit import Beit as TimmBeit
from torch import Tensor, nn

from mae_kit.configured import Configured
from mae_kit.encoders.timm_models import block_tokens, create, pair, stochastic_depth
from mae_kit.errors import UserError
from mae_kit.patches import grid_of

STD = 0.02  # of all weights, which are cut off at one deviation (modeling_pretrain.py)
WITHIN = math.erf(0.5**0.5)  # the share that a normal distribution has within one deviation


class Beit(Configured):
    """A timm BEiT transformer without its head: layer scale, and relative positions in place of a position table.

    All blocks share one table of relative positions. In a state dict each has its copy, so that plain timm loads the
    encoder, and fine-tuning moves them apart (BEiT, modeling_finetune.py).

    Args:
        name: timm's name of the model, for example beit_base_patch16_224.
        img_size: Height and width in pixels, one number for a square; by default the model's own.
        patch_size: Side of a patch in pixels, or height and width; by default the model's own.
        in_chans: Channels of the images.
        embed_dim: Width of the tokens; by default the model's own.
        depth: Number of blocks; by default the model's own.
        num_heads: Attention heads; by default the model's own.
        init_values: Where layer scale starts; by default the model's own (paper: .1, of the large model 1e-5).
        drop_path: Stochastic depth rate of the last block, 0 to 1 (paper: .1); it is not part of the encoder's file.

    Raises:
        UserError: timm knows no such BEiT, or the patch does not divide the image.
    """

    prefix, has_class_token = 1, True

    def __init__(
        self,
        name: str = "beit_base_patch16_224",
        img_size: int | list[int] | None = None,
        patch_size: int | list[int] | None = None,
        in_chans: int = 3,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        init_values: float | None = None,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.name = name
        given = {
            "img_size": img_size,
            "patch_size": patch_size,
            "embed_dim": embed_dim,
            "depth": depth,
            "num_heads": num_heads,
            "init_values": init_values,
        }
        pooling = {"global_pool": "token"}  # the last norm is before it, as pretraining wants it
        self.model_args = {k: v for k, v in given.items() if v is not None} | {"in_chans": in_chans} | pooling
        if img_size is not None and patch_size is not None:
            grid_of(pair(img_size), pair(patch_size))
        self.model = _create(name, self.model_args | stochastic_depth(drop_path))
        embed: Any = self.model.patch_embed
        self.image_size: tuple[int, int] = pair(embed.img_size)
        self.patch_size: tuple[int, int] = pair(embed.patch_size)
        self.grid = grid_of(self.image_size, self.patch_size)
        self.dim = self.embed_dim = int(self.model.embed_dim)
        self.channels, self.depth = in_chans, len(self.model.blocks)
        self.stride, self.cells = self.patch_size, self.grid
        _initialize(self.model)
        _share_positions(self.model)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b t d"]:
        """All tokens of the whole image, after the final norm: nothing hidden."""
        return self.model.forward_features(images)

    def layers(self, images: Float[Tensor, "b c h w"], numbers: Sequence[int]) -> list[Float[Tensor, "b t d"]]:
        """All tokens after some of the blocks, counted from 1 and ascending, each through the final norm."""
        return block_tokens(self.model, images, numbers)

    def fill(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], token: Float[Tensor, " d"]
    ) -> Float[Tensor, "b t d"]:
        """All tokens, `token` in place of the embedding of each hidden patch (BEiT, section 2.3)."""
        embedded = self.model.patch_embed(images)
        x = torch.where(hidden[:, :, None], token.to(embedded.dtype), embedded)
        first: Tensor = self.model.cls_token
        x = torch.cat([first.expand(len(x), -1, -1).to(x.dtype), x], dim=1)
        for block in self.model.blocks:
            x = block(x)
        return self.model.norm(x)


def _create(name: str, model_args: dict) -> Any:
    model: Any = create(name, model_args, "beit_*_224")
    if type(model) is not TimmBeit:
        raise UserError("beit.create", f"encoder name {name!r} is not a BEiT", "choose one of timm's beit_* models")
    return model


def _initialize(model: Any) -> None:
    """The original's initialization, where timm cuts off at 100 deviations and leaves the patch embedding to torch."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            truncated_normal(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    truncated_normal(model.cls_token)
    model.fix_init_weight()


def truncated_normal(tensor: Tensor) -> None:
    """What BEiT starts from, in place; torch's own draws anew what falls outside, which takes 16 s for a base model."""
    with torch.no_grad():
        tensor.uniform_(-WITHIN, WITHIN).erfinv_().mul_(STD * 2**0.5)


def _share_positions(model: Any) -> None:
    for block in model.blocks:
        block.attn.relative_position_bias_table = model.blocks[0].attn.relative_position_bias_table
    model.register_state_dict_post_hook(_copy_for_each_block)
    model.register_load_state_dict_pre_hook(_must_be_shared)


def _tables(model: Any, prefix: str) -> list[str]:
    return [f"{prefix}blocks.{i}.attn.relative_position_bias_table" for i in range(len(model.blocks))]


def _copy_for_each_block(model: Any, tensors: dict[str, Tensor], prefix: str, _: Any) -> None:
    """A safetensors file holds no tensor twice."""
    for name in _tables(model, prefix):
        tensors[name] = tensors[name].clone()


def _must_be_shared(model: Any, tensors: dict[str, Tensor], prefix: str, *_: Any) -> None:
    tables = [tensors[name] for name in _tables(model, prefix) if name in tensors]
    if not all(torch.equal(tables[0], table) for table in tables):
        what = "the blocks of these weights have relative positions of their own, as after fine-tuning"
        raise UserError("beit.shared", what, "start from a BEiT that was only pretrained")
