"""timm models behind one contract: an encoder knows its image size, grid and width, and its ways to hide patches.

Attributes of each: `name` and `model_args` (what rebuilds the timm `model`), `image_size`, `patch_size` and `grid` (of
the patches that can be hidden: those that are embedded, but the cells in a ConvNeXt and a Hiera, which mix the former),
`embed_dim` (their width), `stride`, `cells` and `dim` (pixels, grid and width of what comes out, the same in a ViT),
`channels`, `prefix` (tokens in front of the cells), `has_class_token` (the first of these), `depth` (layers to ask:
blocks of a ViT, stages of the others).
"""

from collections.abc import Sequence
from inspect import signature
from typing import Any

from mae_kit.encoders.beit import Beit
from mae_kit.encoders.convnextv2 import ConvNeXtV2
from mae_kit.encoders.gpt import GPT
from mae_kit.encoders.hiera import Hiera
from mae_kit.encoders.swin import Swin
from mae_kit.encoders.vit import ViT
from mae_kit.errors import UserError

Backbone = ViT | Swin | Beit | ConvNeXtV2 | Hiera | GPT

__all__ = ["GPT", "Backbone", "Beit", "ConvNeXtV2", "Hiera", "Swin", "ViT", "backbone"]


_FAMILIES: dict[str, type[Backbone]] = {
    "swin_": Swin,
    "beit_": Beit,
    "convnextv2_": ConvNeXtV2,
    "hiera_": Hiera,
    "igpt_": GPT,
}
_DERIVED = ("global_pool", "mask_unit_size")  # arguments of timm's that our encoders set by themselves
_DROPPING = "drop_rate"  # of timm's arguments for training alone: patch_drop_rate, attn_drop_rate and others


def backbone(name: str, model_args: dict[str, Any], image_size: Sequence[int] | None = None) -> Backbone:
    """The encoder that a file names.

    Args:
        name: timm's.
        model_args: timm's arguments that differ from the name's own.
        image_size: Height and width in pixels, for models that do not have it among their arguments.

    Raises:
        UserError: It is none of these, or has arguments that these do not take.
    """
    kind: Any = next((kind for family, kind in _FAMILIES.items() if name.startswith(family)), ViT)
    sized = {"img_size": list(image_size)} if image_size else {}
    ours = {key: value for key, value in model_args.items() if key not in _DERIVED and not key.endswith(_DROPPING)}
    given = sized | ours
    if unknown := given.keys() - signature(kind.__init__).parameters.keys():
        what = f"no encoder is made of a {name} with {', '.join(sorted(unknown))}"
        raise UserError("encoders.backbone", what, "give one that differs from timm's own in its sizes alone")
    return kind(name, **given)
