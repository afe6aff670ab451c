"""timm models behind one contract: an encoder knows its image size, grid and width, and its ways to hide patches.

Attributes of each: `name` and `model_args` (what rebuilds the timm `model`), `image_size`, `patch_size` and `grid` (of
the patches that are embedded), `embed_dim` (their width), `stride`, `cells` and `dim` (pixels, grid and width
of what comes out, the same in a ViT), `channels`, `prefix` (tokens in front of the cells).
"""

from mae_kit.backbones.beit import Beit
from mae_kit.backbones.swin import Swin
from mae_kit.backbones.vit import ViT

Backbone = ViT | Swin | Beit

__all__ = ["Backbone", "Beit", "Swin", "ViT"]
