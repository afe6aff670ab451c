"""The one record of a model: what its weights mean, how images are prepared for it, and what its logits mean."""

from dataclasses import dataclass, field, fields
from typing import Any

from mae_kit.data.scale import Scale
from mae_kit.files.plain_types import mismatch

CROP_PCT = 0.875  # of published classifiers: 224 of 256 pixels
WHOLE_FROM = 384  # pixels a side from which published classifiers are scored on whole images


@dataclass(frozen=True)
class ModelConfig:
    """What is known of a model besides its weights: every training and export writes it, every import reads it.

    `timm.create_model(model, num_classes=len(classes), **model_args)` is what the weights belong to.

    Attributes:
        model: timm's name.
        model_args: img_size, patch_size, in_chans, global_pool and whatever else differs from timm's defaults.
        mean: Per channel, in [0, 1], of the normalization in training.
        std: Per channel.
        objective: Class that it was pretrained with: "MAE"; "classification", "none" if unknown.
        step: Optimizer steps of pretraining; 0 if unknown.
        image_size: Height and width in pixels of the images; None where only `model_args` says it.
        crop_pct: Fraction of the shorter side that the center crop keeps when images are scored, above 0 to 1.
        crop_mode: "center" keeps the aspect of an image, "squash" resizes the whole image to `image_size`.
        interpolation: "bicubic" or "bilinear", both antialiased.
        classes: Names in the order of the logits; empty for an encoder.
        multi_label: Whether an image may have any number of the classes: sigmoid, not softmax, gives probabilities.
        scale: How values of more than 8 bits become model input; None where training had 8 bits.
        bands: Names of the channels, where they were given to weights for other ones; empty otherwise.
    """

    model: str
    model_args: dict[str, Any]
    mean: list[float]
    std: list[float]
    objective: str = "none"
    step: int = 0
    image_size: tuple[int, int] | None = None
    crop_pct: float = 1.0
    crop_mode: str = "center"
    interpolation: str = "bicubic"
    classes: list[str] = field(default_factory=list)
    multi_label: bool = False
    scale: Scale | None = None
    bands: list[str] = field(default_factory=list)

    @property
    def band_names(self) -> list[str]:
        """Names of the bands in the order of the channels; empty where they have none."""
        return self.bands or (self.scale.names if self.scale else [])

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def size(self) -> tuple[int, int]:
        """`image_size` of a classifier, where it is always known."""
        assert self.image_size is not None
        return self.image_size

    @property
    def crop(self) -> tuple[float, str, str]:
        """How images are cropped and resized when they are scored: crop_pct, crop_mode, interpolation."""
        return self.crop_pct, self.crop_mode, self.interpolation


def parse_config(content: dict[str, Any]) -> ModelConfig:
    """Make the record of a file's header.

    Raises:
        TypeError, ValueError, KeyError: It is not of this kind.
    """
    kinds = {"model": str, "model_args": dict, "mean": list, "std": list, "classes": list, "multi_label": bool}
    if unknown := content.keys() - {each.name for each in fields(ModelConfig)}:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}")
    if wrong := [key for key, kind in kinds.items() if not isinstance(content[key], kind)]:
        raise ValueError(f"{', '.join(wrong)} of another type")
    height, width = content["image_size"] or (0, 0)
    mean, std = ([float(value) for value in content[key]] for key in ("mean", "std"))
    if len(mean) != len(std) or not 0 < content["crop_pct"] <= 1:
        raise ValueError("mean and std of different lengths, or crop_pct outside 0 to 1")
    if fault := mismatch(content.get("bands", []), list[str], "bands"):
        raise ValueError(fault)
    size = (int(height), int(width)) if height else None
    return ModelConfig(**content | {"mean": mean, "std": std, "image_size": size, "scale": parse_scale(content)})


def parse_labeled(content: dict[str, Any]) -> ModelConfig:
    """Make the record of a model with a head, as `parse_config`.

    Raises:
        TypeError, ValueError, KeyError: Its classes or the size of its images are not known, or as of `parse_config`.
    """
    config = parse_config(content)
    if not config.image_size or not config.classes:
        raise ValueError("it has no image size or no classes")
    return config


def parse_scale(content: dict[str, Any]) -> Scale | None:
    """The scale of a file's header; None where it has none.

    Raises:
        ValueError: It is no scale.
    """
    return Scale.of(content["scale"]) if content.get("scale") else None


def published_crop(size: int) -> float:
    """The crop with which MAE, BEiT, Swin and ConvNeXt score classifiers of so many pixels (util/datasets.py)."""
    return CROP_PCT if size < WHOLE_FROM else 1.0
