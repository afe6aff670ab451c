"""preprocessor_config.json of transformers: how images are prepared, read into a record and written from it."""

from dataclasses import asdict
from typing import Any, NamedTuple

from mae_kit.data.index.statistics import IMAGENET
from mae_kit.encoders.timm_models import pair
from mae_kit.weights.config import WHOLE_FROM, ModelConfig, parse_scale
from mae_kit.weights.files import Raw

BICUBIC, BILINEAR = 3, 2  # Pillow's numbers
EIGHT_BITS = 255
ASSUMED = "--mean and --std override it"


class Prepared(NamedTuple):
    """What the file says of a model's images, as fields of its record.

    Attributes:
        fields: mean, std, image_size, crop_pct, crop_mode, interpolation and scale, as far as they are known.
        notes: One sentence for each assumption.
    """

    fields: dict[str, Any]
    notes: list[str]


def read_preprocessor(raw: Raw, channels: int) -> Prepared:
    """Read a folder's preprocessor_config.json; without one its family's usual normalization is assumed."""
    said = raw.preprocessor
    fields: dict[str, Any] = {"scale": parse_scale(said)}
    notes = []
    if {"image_mean", "image_std"} <= said.keys() or said.get("do_normalize") is False:
        fields["mean"], fields["std"] = _statistics(said, channels)
    else:
        half = raw.config.get("model_type") in ("vit", "beit")  # supervised ViTs and BEiT saw -1..1
        fields["mean"], fields["std"] = ([0.5] * channels,) * 2 if half else imagenet_statistics(channels)
        notes.append(f"images normalized by mean {fields['mean']} and std {fields['std']}, its family's; {ASSUMED}")
    if said:
        fields |= _crop(said)
        fields["interpolation"] = "bilinear" if said.get("resample") == BILINEAR else "bicubic"
        if said.get("resample", BICUBIC) not in (BICUBIC, BILINEAR):
            notes.append("images resized bicubically, the file has another filter")
    return Prepared(fields, notes)


def imagenet_statistics(channels: int) -> tuple[list[float], list[float]]:
    """ImageNet's, which MAE was trained with; their means where there are not three channels."""
    mean, std = IMAGENET
    if channels == len(mean):
        return mean, std
    return [round(sum(mean) / 3, 3)] * channels, [round(sum(std) / 3, 3)] * channels


def _statistics(said: dict[str, Any], channels: int) -> tuple[list[float], list[float]]:
    """Of values in 0..1: theirs are of values times `rescale_factor`, or of 0..255 without it."""
    factor = said.get("rescale_factor", 1 / EIGHT_BITS) if said.get("do_rescale", True) else 1
    scale = EIGHT_BITS * factor
    plain = said.get("do_normalize") is False
    mean, std = ([0.0] * channels, [1.0] * channels) if plain else (said["image_mean"], said["image_std"])
    return [round(value / scale, 9) for value in mean], [round(value / scale, 9) for value in std]


def _crop(said: dict[str, Any]) -> dict[str, Any]:
    size = said.get("size") or {}
    side = size.get("shortest_edge") if isinstance(size, dict) else size
    if said.get("do_center_crop") and said.get("crop_size"):
        target = _sides(said["crop_size"])
        resized = side or min(_sides(size))
        return {"image_size": target, "crop_pct": min(1.0, min(target) / resized)}
    if side and "crop_pct" in said and side < WHOLE_FROM:  # ConvNeXt's processor
        return {"image_size": (side, side), "crop_pct": float(said["crop_pct"] or 224 / 256)}
    return {"image_size": _sides(size), "crop_mode": "squash"} if size else {}


def _sides(size: Any) -> tuple[int, int]:
    if not isinstance(size, dict):
        return pair(size)
    for prefix in ("", "max_"):
        if f"{prefix}height" in size:
            return size[f"{prefix}height"], size[f"{prefix}width"]
    return pair(size["shortest_edge"])


def write_preprocessor(config: ModelConfig, size: tuple[int, int]) -> dict[str, Any]:
    """How transformers prepares images: resized whole, or the shorter side resized and the center cropped.

    It knows no `scale` of images of more than 8 bits, which is ours.
    """
    shown: dict[str, Any] = {"size": {"height": size[0], "width": size[1]}}
    if config.crop_mode == "center":
        shown = {
            "size": {"shortest_edge": round(min(size) / config.crop_pct)},
            "do_center_crop": True,
            "crop_size": shown["size"],
        }
    return {
        "image_processor_type": "ViTImageProcessor" if config.crop_mode == "squash" else "BitImageProcessor",
        "do_resize": True,
        **shown,
        "resample": BILINEAR if config.interpolation == "bilinear" else BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / EIGHT_BITS,
        "do_normalize": True,
        "image_mean": config.mean,
        "image_std": config.std,
        "do_convert_rgb": config.channels == len(IMAGENET[0]),
        **({"scale": asdict(config.scale)} if config.scale else {}),
    }
