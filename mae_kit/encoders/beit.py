"""timm's BEiT transformers, with one table of relative positions for all blocks during pretraining."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from timm.models.beit import Beit
from torch import Tensor, nn

from mae_kit.encoders.encoder import Encoder, Size
from mae_kit.encoders.timm_models import block_tokens, stochastic_depth
from mae_kit.encoders.vit import block_sizes, check_patch_size, read_block_sizes
from mae_kit.errors import UserError

STD = 0.02  # of all weights, truncated at one deviation (modeling_pretrain.py)
WITHIN = math.erf(0.5**0.5)  # probability of a normal distribution within one deviation


class BEiTEncoder(Encoder):
    """A timm BEiT without its head: layer scale, and a relative position bias instead of position embeddings.

    All blocks share one relative position bias. In a state dict each block has a copy, so that plain timm loads the
    encoder, and fine-tuning trains them separately (BEiT, modeling_finetune.py).

    Args:
        name: timm's name of the model, for example beit_base_patch16_224.
        img_size: Height and width in pixels, one number for a square; by default the model's own.
        patch_size: Side of a patch in pixels, or height and width; by default the model's own.
        in_chans: Channels of the images.
        embed_dim: Width of the tokens; by default the model's own.
        depth: Number of blocks; by default the model's own.
        num_heads: Attention heads; by default the model's own.
        init_values: Initial layer scale; by default the model's own (paper: .1, large model 1e-5).
        drop_path: Stochastic depth rate of the last block, 0 to 1 (paper: .1); not part of the encoder's file.

    Raises:
        UserError: timm has no such BEiT, or the patch does not divide the image.

    Example:
        >>> import torch, mae_kit as mk
        >>> beit = mk.BEiTEncoder("beit_base_patch16_224", img_size=32, patch_size=8, depth=2)
        >>> beit(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 17, 768])
    """

    timm_class, family, examples = Beit, "BEiT", "beit_*"
    prefix, has_class_token = 1, True

    def __init__(
        self,
        name: str = "beit_base_patch16_224",
        img_size: Size | None = None,
        patch_size: Size | None = None,
        in_chans: int = 3,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        init_values: float | None = None,
        drop_path: float = 0.0,
    ):
        check_patch_size(img_size, patch_size)
        sizes = {"img_size": img_size, "patch_size": patch_size, "embed_dim": embed_dim, "depth": depth}
        sizes |= {"num_heads": num_heads, "init_values": init_values, "in_chans": in_chans}
        pooling = {"global_pool": "token"}  # keeps the last norm before the pooling, as pretraining needs it
        super().__init__(name, sizes | pooling, stochastic_depth(drop_path))

    @classmethod
    def arguments_of(cls, model: Any) -> dict[str, Any]:
        return block_sizes(model)

    def prepare(self, fresh: bool) -> None:
        if fresh:
            _initialize(self.model)
        else:
            _must_be_shared(self.model, self.model.state_dict(), "")
        _share_positions(self.model)

    def read_sizes(self) -> None:
        read_block_sizes(self)

    def layers(self, images: Float[Tensor, "b c h w"], numbers: Sequence[int]) -> list[Float[Tensor, "b t d"]]:
        """Tokens after some of the blocks, each through the final norm."""
        return block_tokens(self.model, images, numbers)

    def fill(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], token: Float[Tensor, " d"]
    ) -> Float[Tensor, "b t d"]:
        """Encode with `token` in place of each hidden patch's embedding (BEiT, section 2.3)."""
        embedded = self.model.patch_embed(images)
        x = torch.where(hidden[:, :, None], token.to(embedded.dtype), embedded)
        first: Tensor = self.model.cls_token
        x = torch.cat([first.expand(len(x), -1, -1).to(x.dtype), x], dim=1)
        for block in self.model.blocks:
            x = block(x)
        return self.model.norm(x)


def _initialize(model: Any) -> None:
    """Initialize as the original; timm truncates at 100 deviations and leaves the patch embedding to torch."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            truncated_normal(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    truncated_normal(model.cls_token)
    model.fix_init_weight()


def truncated_normal(tensor: Tensor) -> None:
    """Draw BEiT's initial weights, in place, by inversion: torch's own redraws outliers, 16 s for a base model."""
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
        what = "each block of these weights has its own relative position bias, as after fine-tuning"
        raise UserError("encoder.relative_positions", what, "start from a BEiT that was pretrained but not fine-tuned")
