"""Weights that timm publishes under a name, written `timm:NAME`: timm's loader fetches them, or has them already."""

import difflib
from pathlib import Path

import timm

from mae_kit.errors import UserError
from mae_kit.weights.files import Raw

PREFIX = "timm:"
_EXAMPLE = "vit_base_patch16_224.mae"


def is_published(path: Path) -> bool:
    """Whether it is such a name and no file."""
    return str(path).startswith(PREFIX)


def architecture(path: Path) -> str:
    """Timm's name of the model that it is the weights of.

    Raises:
        UserError: timm publishes no weights under the name; proposes others.
    """
    name = str(path).removeprefix(PREFIX)
    if not timm.is_model_pretrained(name):
        near = difflib.get_close_matches(name, timm.list_pretrained(), 3) or [_EXAMPLE]
        fix = f"choose for example {', '.join(PREFIX + one for one in near)}"
        raise UserError("timm_published.architecture", f"timm publishes no weights under the name {name!r}", fix)
    return name.split(".")[0]


def read_published(path: Path) -> Raw:
    """What the folder on the Hub says.

    Raises:
        UserError: timm knows no such name, or the weights can be neither fetched nor found.
    """
    name = architecture(path)
    try:
        model = timm.create_model(str(path).removeprefix(PREFIX), pretrained=True)
    except Exception as error:  # network, hub and timm have no common base
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        fix = "check the network, or bring the cache of Hugging Face (HF_HOME) from a machine that has fetched them"
        raise UserError("timm_published.read_published", f"{path} cannot be fetched ({reason})", fix) from error
    config = {"architecture": name, "num_classes": model.num_classes, "pretrained_cfg": model.pretrained_cfg}
    return Raw(path, model.state_dict(), {}, config, {})
