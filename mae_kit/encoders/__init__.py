"""timm models behind one contract (`encoder.Encoder`): sizes, features of every layer, and ways of hiding patches."""

import re
from collections.abc import Sequence
from inspect import signature
from typing import Any

from mae_kit.encoders.beit import BEiTEncoder
from mae_kit.encoders.convnextv2 import ConvNeXtV2
from mae_kit.encoders.encoder import Encoder
from mae_kit.encoders.eva import EVA
from mae_kit.encoders.hiera import Hiera
from mae_kit.encoders.image_gpt import ImageGPT
from mae_kit.encoders.swin import Swin
from mae_kit.encoders.vit import ViT
from mae_kit.errors import UserError

__all__ = ["EVA", "BEiTEncoder", "ConvNeXtV2", "Encoder", "Hiera", "ImageGPT", "Swin", "ViT", "create_encoder"]

_FAMILIES: dict[str, type[Encoder]] = {
    "swin_": Swin,
    "beit_": BEiTEncoder,
    "convnextv2_": ConvNeXtV2,
    "hiera_": Hiera,
    "igpt_": ImageGPT,
}
_ROTARY = re.compile(r"eva|.*_(dinov3|rope)")
_DERIVED = ("global_pool", "mask_unit_size")  # timm's arguments that our constructors set themselves
_DROPPING = "drop_rate"  # suffix of timm's arguments for training only: patch_drop_rate, attn_drop_rate and others


def create_encoder(name: str, model_args: dict[str, Any], image_size: Sequence[int] | None = None) -> Encoder:
    """Make the encoder that a file names, with fresh weights.

    Args:
        name: timm's name.
        model_args: timm's arguments that differ from the name's own.
        image_size: Height and width in pixels, for models that do not have it among their arguments.

    Raises:
        UserError: No family has this name, or it does not take these arguments.
    """
    plain = EVA if _ROTARY.match(name) else ViT
    kind: Any = next((kind for family, kind in _FAMILIES.items() if name.startswith(family)), plain)
    sized = {"img_size": list(image_size)} if image_size else {}
    ours = {key: value for key, value in model_args.items() if key not in _DERIVED and not key.endswith(_DROPPING)}
    if kind is plain and (parts := {key: ours.pop(key) for key in kind.parts_of_timm & ours.keys()}):
        pooled = {} if parts.get("class_token", True) else {"global_pool": model_args.get("global_pool", "avg")}
        ours["parts"] = parts | pooled
    given: dict[str, Any] = sized | ours
    if unknown := given.keys() - signature(kind.__init__).parameters.keys():
        what = f"an encoder cannot change {', '.join(sorted(unknown))} of a {name}"
        raise UserError("encoder.model_args.other", what, "give one that differs from timm's own in its sizes only")
    return kind(name, **given)
