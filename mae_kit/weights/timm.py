"""timm's folders, as on the Hub: config.json and model.safetensors, for `timm.create_model("local-dir:DIR")`; and the
weights that timm publishes under a name, written `timm:NAME`, which timm's loader downloads or has in its cache.
"""

import difflib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from mae_kit.errors import UserError
from mae_kit.weights.config import CROP_PCT, ModelConfig, parse_scale
from mae_kit.weights.files import Raw
from mae_kit.weights.huggingface import MULTI_LABEL
from mae_kit.weights.plain_vit import Hints
from mae_kit.weights.pretrained import Pretrained, build_timm, classifier_args, described, image_size

PREFIX = "timm:"
_MOST_CLASSES = 1_000_000
_EXAMPLE = "vit_base_patch16_224.mae"


def recognizes(raw: Raw) -> bool:
    return "architecture" in raw.config


def read(raw: Raw, hints: Hints) -> tuple[Pretrained, list[str]]:
    """Read under our names; unknown ones are found when the model is built."""
    name = raw.config["architecture"]
    if not timm.is_model(name):
        raise UserError("weights.timm_name.model", f"{raw.path}: timm has no model {name}", "update timm")
    given = raw.config.get("pretrained_cfg", raw.config)
    with torch.device("meta"):
        own: Any = timm.create_model(name).pretrained_cfg
    count = raw.config.get("num_classes", given.get("num_classes", 0))
    if not (isinstance(count, int) and 0 <= count <= _MOST_CLASSES):
        raise ValueError(f"num_classes is {count}")
    labels = raw.config.get("label_names") or given.get("label_names") or range(count)
    mean, std = (list(given.get(key) or own[key]) for key in ("mean", "std"))
    args = _arguments(raw.config.get("model_args", {}), given, own)
    args = classifier_args(name, args) if count else args
    interpolation, notes = _either(given.get("interpolation"), ("bicubic", "bilinear"), "interpolation")
    crop_mode, more = _either(given.get("crop_mode"), ("center", "squash"), "crop_mode")
    config = ModelConfig(
        name,
        args,
        mean,
        std,
        image_size=_image_size(given, own),
        crop_pct=float(given.get("crop_pct") or CROP_PCT),
        crop_mode=crop_mode,
        interpolation=interpolation,
        classes=[str(label) for label in labels][:count],
        multi_label=raw.config.get("problem_type") == MULTI_LABEL,
        scale=parse_scale(raw.config),
    )
    return Pretrained(f"timm's {name}, {described(config.classes)}", config, raw.tensors, notes=notes + more), []


def _either(given: str | None, known: tuple[str, str], setting: str) -> tuple[str, list[str]]:
    """A setting of timm's scoring, or the usual one with a note."""
    if given in (*known, None):
        return given or known[0], []
    return known[0], [f"images are prepared with {setting} {known[0]}, the file has {given}"]


def write(weights: Pretrained) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """config.json and tensors."""
    config = weights.config
    model = build_timm(weights)
    height, width = image_size(config, model)
    cfg = {
        "input_size": [config.model_args.get("in_chans", 3), height, width],
        "fixed_input_size": model.pretrained_cfg["fixed_input_size"],
        "interpolation": config.interpolation,
        "crop_pct": config.crop_pct,
        "crop_mode": config.crop_mode,
        "mean": config.mean,
        "std": config.std,
        "num_classes": len(weights.classes),
        "first_conv": model.pretrained_cfg["first_conv"],
        "classifier": model.pretrained_cfg["classifier"],
    }
    content: dict[str, Any] = {
        "architecture": config.model,
        "num_classes": len(weights.classes),
        "num_features": model.num_features,
        "model_args": config.model_args,
        "pretrained_cfg": cfg,
    }
    if isinstance(pool := getattr(model, "global_pool", None), str):
        content["global_pool"] = pool
    if weights.classes:
        content["label_names"] = weights.classes
    if config.multi_label:
        content["problem_type"] = MULTI_LABEL
    if config.scale:
        content["scale"] = asdict(config.scale)
    return content, dict(weights.tensors)


def _arguments(args: dict[str, Any], given: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Those written down, and the size and channels of its images where they are not the name's own."""
    channels, *size = given.get("input_size") or own["input_size"]
    found = {"in_chans": channels}
    if own["fixed_input_size"] and tuple(size) != tuple(own["input_size"][1:]):
        found["img_size"] = list(size)
    return found | {name: value for name, value in args.items() if name != "num_classes"}


def _image_size(given: dict[str, Any], own: dict[str, Any]) -> tuple[int, int]:
    _, height, width = given.get("input_size") or own["input_size"]
    return int(height), int(width)


def is_published(path: Path) -> bool:
    """Tell whether a path is timm:NAME."""
    return str(path).startswith(PREFIX)


def architecture(path: Path) -> str:
    """The timm model that published weights belong to.

    Raises:
        UserError: timm publishes no weights under the name; proposes others.
    """
    name = str(path).removeprefix(PREFIX)
    if not timm.is_model_pretrained(name):
        near = difflib.get_close_matches(name, timm.list_pretrained(), 3) or [_EXAMPLE]
        fix = f"choose, for example, {', '.join(PREFIX + one for one in near)}"
        raise UserError("weights.timm_name.tag", f"timm publishes no weights under the name {name!r}", fix)
    return name.split(".")[0]


def read_published(path: Path) -> Raw:
    """Download published weights, or take them from the cache.

    Raises:
        UserError: timm knows no such name, or the weights can be neither fetched nor found.
    """
    name = architecture(path)
    try:
        model = timm.create_model(str(path).removeprefix(PREFIX), pretrained=True)
    except Exception as error:  # network, hub and timm have no common base
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        fix = "check the network, or copy the cache of Hugging Face (HF_HOME) from a machine that has them"
        raise UserError("weights.download.failed", f"{path} cannot be fetched ({reason})", fix) from error
    config = {"architecture": name, "num_classes": model.num_classes, "pretrained_cfg": model.pretrained_cfg}
    return Raw(path, model.state_dict(), {}, config, {})
