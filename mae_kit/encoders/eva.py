"""timm's vision transformers with rotary positions: EVA-02, DINOv3, and ViTs of their kind."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Int64
from timm.layers import PatchEmbed
from timm.models.eva import Eva
from torch import Tensor, nn

from mae_kit.encoders.encoder import Size
from mae_kit.encoders.vit import ViT


class EVA(ViT):
    """A timm Eva without its head: rotary position embeddings (RoPE) in every block.

    Hidden patches are dropped or filled as in a `ViT`; the others keep their rotations.

    Args:
        name: timm's name of the model, for example vit_base_patch16_dinov3 or eva02_base_patch14_224.
        img_size: Height and width in pixels, one number for a square; by default the model's own.
        patch_size: Side of a patch in pixels, or height and width; by default the model's own.
        in_chans: Channels of the images.
        embed_dim: Width of the tokens; by default the model's own.
        depth: Number of blocks; by default the model's own.
        num_heads: Attention heads; by default the model's own.
        parts: timm's arguments in which the model differs from timm's model of that name: num_reg_tokens, class_token,
            no_embed_class, use_abs_pos_emb, init_values (layer scale), qk_norm, qkv_bias, mlp_ratio, swiglu_mlp,
            swiglu_align_to, rope_temperature, use_fc_norm.

    Raises:
        UserError: timm has no such model, its rotary embeddings are learned, or the patch does not divide the image.

    Example:
        >>> import torch, mae_kit as mk
        >>> eva = mk.EVA("vit_small_patch16_dinov3", img_size=32, patch_size=8, depth=2)
        >>> eva(torch.randn(2, 3, 32, 32)).shape  # a class token, 4 registers and 4 x 4 patches
        torch.Size([2, 21, 384])
    """

    timm_class = Eva
    family, examples = "transformer with fixed rotary positions", "eva02_*"
    parts_of_timm = frozenset(("num_reg_tokens", "class_token", "no_embed_class", "use_abs_pos_emb", "init_values"))
    parts_of_timm |= {"qk_norm", "qkv_bias", "mlp_ratio", "swiglu_mlp", "swiglu_align_to", "rope_temperature"}
    parts_of_timm |= {"use_fc_norm", "global_pool"}
    has_attention_maps = has_position_table = False

    def __init__(
        self,
        name: str = "vit_base_patch16_dinov3",
        img_size: Size | None = None,
        patch_size: Size | None = None,
        in_chans: int = 3,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        parts: dict[str, Any] | None = None,
    ):
        super().__init__(name, img_size, patch_size, in_chans, embed_dim, depth, num_heads, parts)

    @classmethod
    def accepts(cls, model: nn.Module) -> bool:
        """Rotations that are learned differ from block to block."""
        known: Any = model if type(model) is Eva else None
        return (
            known is not None
            and type(known.patch_embed) is PatchEmbed
            and known.rope is not None
            and not known.rope_mixed
        )

    @torch.no_grad()
    def set_sincos_positions(self) -> None:
        """Set the position table, if there is one besides the rotations."""
        if self.model.pos_embed is not None:
            super().set_sincos_positions()

    def _blocks(self, where: Int64[Tensor, "b v"]) -> Sequence[Callable[[Tensor], Tensor]]:
        rotations = self.model.rope.get_embed(shape=self.grid)[where].unsqueeze(1)  # the same for all heads
        return [partial(block, rope=rotations) for block in self.model.blocks]
