"""timm's vision transformers, any name, size, patch, rectangle or channel count, with two ways of hiding patches."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mae_kit.configured import Configured
from mae_kit.encoders.position_embeddings import sincos_positions
from mae_kit.encoders.timm_models import block_tokens, create, pair
from mae_kit.errors import UserError
from mae_kit.patches import grid_of, patchify


class ViT(Configured):
    """A timm vision transformer without its head.

    Args:
        name: timm's name of the model, for example vit_base_patch16_224.
        img_size: Height and width in pixels, one number for a square; by default the model's own.
        patch_size: Side of a patch in pixels, or height and width; by default the model's own.
        in_chans: Channels of the images.
        embed_dim: Width of the tokens; by default the model's own.
        depth: Number of blocks; by default the model's own.
        num_heads: Attention heads; by default the model's own.

    Raises:
        UserError: timm knows no such vision transformer, or the patch does not divide the image.
    """

    def __init__(
        self,
        name: str = "vit_base_patch16_224",
        img_size: int | list[int] | None = None,
        patch_size: int | list[int] | None = None,
        in_chans: int = 3,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
    ):
        super().__init__()
        self.name = name
        given = {
            "img_size": img_size,
            "patch_size": patch_size,
            "embed_dim": embed_dim,
            "depth": depth,
            "num_heads": num_heads,
        }
        self.model_args = {k: v for k, v in given.items() if v is not None} | {"in_chans": in_chans}
        if img_size is not None and patch_size is not None:
            grid_of(pair(img_size), pair(patch_size))
        self.model = _create(name, self.model_args)
        embed = self.model.patch_embed
        self.image_size: tuple[int, int] = pair(embed.img_size)
        self.patch_size: tuple[int, int] = pair(embed.patch_size)
        self.grid = grid_of(self.image_size, self.patch_size)
        self.dim = self.embed_dim = int(self.model.embed_dim)
        self.channels = in_chans
        self.prefix: int = self.model.num_prefix_tokens
        self.has_class_token, self.depth = self.model.cls_token is not None, len(self.model.blocks)
        self.stride, self.cells = self.patch_size, self.grid

    def fix_positions(self) -> None:
        """Replace the position table by the fixed sin-cos one: pretraining does not train it (models_mae.py)."""
        rows = 0 if self.model.no_embed_class else self.prefix
        self.model.pos_embed = nn.Parameter(sincos_positions(self.dim, self.grid, rows), requires_grad=False)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b t d"]:
        """All tokens of the whole image, after the final norm: nothing hidden."""
        return self.model.forward_features(images)

    def layers(self, images: Float[Tensor, "b c h w"], numbers: Sequence[int]) -> list[Float[Tensor, "b t d"]]:
        """All tokens after some of the blocks, counted from 1 and ascending, each through the final norm (DINOv2,
        `get_intermediate_layers`): those of the last block are the encoder's output.
        """
        return block_tokens(self.model, images, numbers)

    def drop(self, images: Float[Tensor, "b c h w"], visible: Int64[Tensor, "b v"]) -> Float[Tensor, "b t d"]:
        """Tokens of the visible patches alone; a hidden patch is never embedded (MAE, section 3, "MAE encoder")."""
        patches = patchify(images, self.patch_size)
        patches = patches.gather(1, visible[:, :, None].expand(-1, -1, patches.shape[-1]))
        return self._encode(self._embed(patches), visible)

    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Patch embeddings, without positions."""
        return self._embed(patchify(images, self.patch_size))

    def encode(self, embedded: Float[Tensor, "b n d"]) -> Float[Tensor, "b t d"]:
        """All tokens after the final norm, from patch embeddings of the whole image."""
        return self._encode(embedded, torch.arange(embedded.shape[1], device=embedded.device).expand(len(embedded), -1))

    def fill(
        self, images: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b n"], token: Float[Tensor, " d"]
    ) -> Float[Tensor, "b t d"]:
        """All tokens, `token` in place of the embedding of each hidden patch, before positions (SimMIM, BEiT)."""
        embedded = self.embed(images)
        return self.encode(torch.where(hidden[:, :, None], token.to(embedded.dtype), embedded))

    def _encode(self, embedded: Float[Tensor, "b v d"], where: Int64[Tensor, "b v"]) -> Float[Tensor, "b t d"]:
        x = self.model.norm_pre(self._with_prefix(embedded, where))
        return self.model.norm(self.model.blocks(x))

    def _embed(self, patches: Float[Tensor, "b v q"]) -> Float[Tensor, "b v d"]:
        """The patch convolution as a product: its kernel (d c p p) in the order of a patch (p p c)."""
        projection = self.model.patch_embed.proj
        weight = projection.weight.permute(0, 2, 3, 1).flatten(1)
        return self.model.patch_embed.norm(F.linear(patches, weight, projection.bias))

    def _with_prefix(self, x: Float[Tensor, "b v d"], visible: Int64[Tensor, "b v"]) -> Float[Tensor, "b t d"]:
        """Add positions and put the prefix tokens, which are never hidden, in front."""
        rows = 0 if self.model.no_embed_class else self.prefix
        table: Tensor = self.model.pos_embed  # type: ignore[assignment]  # _create refuses a model without
        x = x + table[0, rows:][visible]
        tokens: list[Tensor] = [t for t in (self.model.cls_token, self.model.reg_token) if t is not None]
        if not tokens:
            return x
        prefix = torch.cat(tokens, dim=1)
        prefix = prefix + table[:, :rows] if rows else prefix
        return torch.cat([prefix.expand(len(x), -1, -1).to(x.dtype), x], dim=1)


def _create(name: str, model_args: dict) -> VisionTransformer:
    model = create(name, model_args, "vit_base_patch16_224")
    # A subclass may have tokens that we do not know of, as the distilled DeiT has.
    if type(model) is not VisionTransformer or type(model.patch_embed) is not PatchEmbed or model.pos_embed is None:
        raise UserError(
            "vit.create",
            f"encoder name {name!r} is not a plain vision transformer",
            "choose one of timm's vit_* models",
        )
    for pooling in (model.fc_norm, model.attn_pool):  # in the encoder's file, but behind the tokens that we use
        if pooling is not None:
            pooling.requires_grad_(False)
    return model
