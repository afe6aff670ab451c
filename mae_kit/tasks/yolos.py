"""YOLOS: a plain ViT whose detection tokens each become a box (arXiv 2106.00666)."""

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mae_kit.errors import UserError
from mae_kit.tasks.set_criterion import Found


class MLP(nn.Module):
    """Layers of one width with ReLU between them, and a last one of another."""

    def __init__(self, width: int, out: int, layers: int = 3):
        super().__init__()
        sizes = [width] * layers + [out]
        self.layers = nn.ModuleList(nn.Linear(one, two) for one, two in pairwise(sizes))

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b _"]:
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class Yolos(nn.Module):
    """Detection tokens behind the patches of a ViT; each says which object it found, or none, and where.

    Args:
        backbone: timm's ViT, made for the size of the images.
        classes: Number of classes.
        queries: Number of detection tokens.

    Raises:
        UserError: The backbone is no plain ViT.
    """

    focal = False

    def __init__(self, backbone: nn.Module, classes: int, queries: int = 100):
        super().__init__()
        if not isinstance(backbone, VisionTransformer) or backbone.pos_embed is None:
            what = f"YOLOS needs a plain ViT, not timm's {type(backbone).__name__}"
            raise UserError("task.detector.yolos", what, "choose a ViT, or --task.detector detr")
        self.backbone: Any = backbone
        for part in (backbone.fc_norm, backbone.head, backbone.attn_pool):
            if part is not None:
                part.requires_grad_(False)
        self.tokens = nn.Parameter(torch.empty(1, queries, backbone.embed_dim))
        nn.init.trunc_normal_(self.tokens, std=0.02)
        self.class_embed, self.bbox_embed = MLP(backbone.embed_dim, classes + 1), MLP(backbone.embed_dim, 4)

    def forward(self, images: Float[Tensor, "b c h w"]) -> list[Found]:
        """Predictions for normalized images, those of the last layer alone."""
        vit = self.backbone
        tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
        queries = self.tokens.expand(tokens.shape[0], -1, -1)
        found = vit.norm(vit.blocks(torch.cat([tokens, queries], dim=1)))[:, -queries.shape[1] :]
        return [Found(self.class_embed(found), self.bbox_embed(found).float().sigmoid())]
