"""timm's vision transformers: any name, size, patch, rectangle or channel count, with two ways of hiding patches."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mae_kit.encoders.encoder import Encoder, Size
from mae_kit.encoders.patches import grid_of, patchify
from mae_kit.encoders.position_embeddings import sincos_positions
from mae_kit.encoders.timm_models import block_tokens, pair
from mae_kit.errors import UserError


class ViT(Encoder):
    """A timm vision transformer without its head (Dosovitskiy et al., ICLR 2021).

    Args:
        name: timm's name of the model, for example vit_base_patch16_224.
        img_size: Height and width in pixels, one number for a square; by default the model's own.
        patch_size: Side of a patch in pixels, or height and width; by default the model's own.
        in_chans: Channels of the images.
        embed_dim: Width of the tokens; by default the model's own.
        depth: Number of blocks; by default the model's own.
        num_heads: Attention heads; by default the model's own.
        parts: timm's arguments in which the model differs from timm's model of that name: reg_tokens, class_token,
            no_embed_class, init_values (layer scale), qk_norm, qkv_bias, mlp_ratio, act_layer, fc_norm; global_pool
            where there is no class token.

    Raises:
        UserError: timm has no such vision transformer, or the patch does not divide the image.

    Example:
        >>> import torch, mae_kit as mk
        >>> vit = mk.ViT("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2)
        >>> vit(torch.randn(2, 3, 32, 32)).shape  # a class token and 4 x 4 patches
        torch.Size([2, 17, 192])
    """

    timm_class: ClassVar[type[nn.Module]] = VisionTransformer
    family, examples = "plain vision transformer", "vit_*"
    parts_of_timm: ClassVar[frozenset[str]] = frozenset(
        ("reg_tokens", "class_token", "no_embed_class", "init_values", "qk_norm", "qkv_bias", "mlp_ratio", "act_layer")
    ) | {"fc_norm", "global_pool"}
    has_attention_maps = has_position_table = True

    def __init__(
        self,
        name: str = "vit_base_patch16_224",
        img_size: Size | None = None,
        patch_size: Size | None = None,
        in_chans: int = 3,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        parts: dict[str, Any] | None = None,
    ):
        check_patch_size(img_size, patch_size)
        if unknown := (parts or {}).keys() - self.parts_of_timm:
            what = f"an encoder cannot change {', '.join(sorted(unknown))} of a {name}"
            fix = f"give {', '.join(sorted(self.parts_of_timm))}, or another of timm's names"
            raise UserError("encoder.model_args.parts", what, fix)
        sizes = {"img_size": img_size, "patch_size": patch_size, "embed_dim": embed_dim, "depth": depth}
        super().__init__(name, sizes | {"num_heads": num_heads, "in_chans": in_chans} | (parts or {}))

    @classmethod
    def accepts(cls, model: nn.Module) -> bool:
        """A subclass of timm's may have tokens that we do not know of, as the distilled DeiT has."""
        known: Any = model if type(model) is VisionTransformer else None
        return known is not None and type(known.patch_embed) is PatchEmbed and known.pos_embed is not None

    @classmethod
    def arguments_of(cls, model: Any) -> dict[str, Any]:
        return block_sizes(model)

    def prepare(self, fresh: bool) -> None:
        for pooling in (self.model.fc_norm, self.model.attn_pool):  # in the encoder's file, but after the tokens
            if pooling is not None:
                pooling.requires_grad_(False)

    def read_sizes(self) -> None:
        read_block_sizes(self)
        self.prefix = self.model.num_prefix_tokens
        self.has_class_token = self.model.cls_token is not None

    @torch.no_grad()
    def set_sincos_positions(self) -> None:
        """Set the position table to MAE's fixed sin-cos one (util/pos_embed.py)."""
        rows = 0 if self.model.no_embed_class else self.prefix
        self.model.pos_embed.copy_(sincos_positions(self.dim, self.grid, rows))

    def layers(self, images: Float[Tensor, "b c h w"], numbers: Sequence[int]) -> list[Float[Tensor, "b t d"]]:
        """Tokens after some of the blocks, each through the final norm (DINOv2, `get_intermediate_layers`)."""
        return block_tokens(self.model, images, numbers)

    def drop(self, images: Float[Tensor, "b c h w"], visible: Int64[Tensor, "b v"]) -> Float[Tensor, "b t d"]:
        """Encode the visible patches alone; a hidden patch is never embedded (MAE, section 3, "MAE encoder")."""
        return self._finish(self._visible(images, visible), visible)

    def drop_layers(
        self, images: Float[Tensor, "b c h w"], visible: Int64[Tensor, "b v"]
    ) -> list[Float[Tensor, "b t d"]]:
        """Encode the visible patches alone: the tokens before the first block and after each, without the final norm.

        The prefix tokens come first, as in `drop`.
        """
        layers = [self._visible(images, visible)]
        for block in self._blocks(visible):
            layers.append(block(layers[-1]))
        return layers

    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Embed the patches, without positions."""
        return self._embed(patchify(images, self.patch_size))

    def encode(self, embedded: Float[Tensor, "b n d"]) -> Float[Tensor, "b t d"]:
        """Encode the embedded patches of whole images: all tokens after the final norm."""
        every = torch.arange(embedded.shape[1], device=embedded.device).expand(len(embedded), -1)
        return self._finish(self._start(embedded, every), every)

    def fill(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], token: Float[Tensor, " d"]
    ) -> Float[Tensor, "b t d"]:
        """Encode with `token` in place of each hidden patch's embedding, before positions (SimMIM, BEiT)."""
        embedded = self.embed(images)
        return self.encode(torch.where(hidden[:, :, None], token.to(embedded.dtype), embedded))

    def _visible(self, images: Float[Tensor, "b c h w"], visible: Int64[Tensor, "b v"]) -> Float[Tensor, "b t d"]:
        patches = patchify(images, self.patch_size)
        patches = patches.gather(1, visible[:, :, None].expand(-1, -1, patches.shape[-1]))
        return self._start(self._embed(patches), visible)

    def _start(self, embedded: Float[Tensor, "b v d"], where: Int64[Tensor, "b v"]) -> Float[Tensor, "b t d"]:
        return self.model.norm_pre(self._with_prefix(embedded, where))

    def _finish(self, x: Float[Tensor, "b t d"], where: Int64[Tensor, "b v"]) -> Float[Tensor, "b t d"]:
        for block in self._blocks(where):
            x = block(x)
        return self.model.norm(x)

    def _blocks(self, where: Int64[Tensor, "b v"]) -> Sequence[Callable[[Tensor], Tensor]]:
        """The blocks, for patches of these places."""
        return list(self.model.blocks)

    def _embed(self, patches: Float[Tensor, "b v q"]) -> Float[Tensor, "b v d"]:
        """The patch convolution as a product: its kernel (d c p p) in the order of a patch (p p c)."""
        projection = self.model.patch_embed.proj
        weight = projection.weight.permute(0, 2, 3, 1).flatten(1)
        return self.model.patch_embed.norm(F.linear(patches, weight, projection.bias))

    def _with_prefix(self, x: Float[Tensor, "b v d"], visible: Int64[Tensor, "b v"]) -> Float[Tensor, "b t d"]:
        """Add positions and put the prefix tokens, which are never hidden, in front."""
        rows = 0 if self.model.no_embed_class else self.prefix
        table: Tensor | None = self.model.pos_embed  # none where all positions are rotations
        x = x if table is None else x + table[0, rows:][visible]
        tokens: list[Tensor] = [t for t in (self.model.cls_token, self.model.reg_token) if t is not None]
        if not tokens:
            return x
        prefix = torch.cat(tokens, dim=1)
        prefix = prefix + table[:, :rows] if rows and table is not None else prefix
        return torch.cat([prefix.expand(len(x), -1, -1).to(x.dtype), x], dim=1)


def check_patch_size(img_size: Size | None, patch_size: Size | None) -> None:
    """Refuse a patch that does not divide the image, before timm builds either.

    Raises:
        UserError: It does not.
    """
    if img_size is not None and patch_size is not None:
        grid_of(pair(img_size), pair(patch_size))


def block_sizes(model: Any) -> dict[str, Any]:
    """The arguments that a timm ViT or BEiT was made with, as far as they are sizes."""
    embed = model.patch_embed
    return {
        "img_size": list(pair(embed.img_size)),
        "patch_size": list(pair(embed.patch_size)),
        "in_chans": embed.proj.in_channels,
        "embed_dim": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": model.blocks[0].attn.num_heads,
    }


def read_block_sizes(encoder: Encoder) -> None:
    """Set the sizes of a ViT or BEiT, where patches stay what they are from the first block to the last."""
    model, embed = encoder.model, encoder.model.patch_embed
    encoder.image_size, encoder.patch_size = pair(embed.img_size), pair(embed.patch_size)
    encoder.channels = embed.proj.in_channels
    encoder.grid = grid_of(encoder.image_size, encoder.patch_size)
    encoder.dim = encoder.embed_dim = int(model.embed_dim)
    encoder.stride, encoder.cells, encoder.depth = encoder.patch_size, encoder.grid, len(model.blocks)
