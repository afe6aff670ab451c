"""timm models behind one contract: an encoder knows its image size, grid and width, and its ways to hide patches.

Attributes of each: `name` and `model_args` (what rebuilds the timm `model`), `image_size`, `patch_size` and `grid` (of
the patches that can be hidden: those that are embedded, but the cells in a ConvNeXt and a Hiera, which mix the former),
`embed_dim` (their width), `stride`, `cells` and `dim` (pixels, grid and width of what comes out, the same in a ViT),
`channels`, `prefix` (tokens in front of the cells).
"""

from mae_kit.backbones.convnextv2 import ConvNeXtV2
from mae_kit.backbones.hiera import Hiera
from mae_kit.backbones.swin import Swin
from mae_kit.backbones.vit import ViT

Backbone = ViT | Swin | ConvNeXtV2 | Hiera

__all__ = ["Backbone", "ConvNeXtV2", "Hiera", "Swin", "ViT"]
