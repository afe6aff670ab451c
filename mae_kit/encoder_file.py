"""An encoder as a file others can use: safetensors under timm's own names, and a small config beside it."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mae_kit.errors import UserError

FORMAT = "mae_kit-encoder"
FILE, CONFIG = "encoder.safetensors", "encoder.json"


@dataclass(frozen=True)
class EncoderConfig:
    """What rebuilds the encoder: `timm.create_model(model, num_classes=0, **model_args)`.

    Attributes:
        model: timm's name.
        model_args: img_size, patch_size, in_chans and what else differs from the name's own.
        mean: Of each channel, in 0..1, that images were normalised with.
        std: Of each channel.
        objective: What it was pretrained with.
        step: Optimiser steps of pretraining.
    """

    model: str
    model_args: dict[str, Any]
    mean: list[float]
    std: list[float]
    objective: str
    step: int


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file that is either the old or the new one, whenever the power goes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, metadata)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_encoder(folder: Path, tensors: dict[str, Tensor], config: EncoderConfig) -> None:
    """Write `encoder.safetensors` and `encoder.json`; the config is in the header too, so that the file is enough."""
    text = json.dumps({"format": FORMAT, "version": 1, **asdict(config)}, indent=2)
    save_tensors(folder / FILE, tensors, {"format": FORMAT, "config": text})
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def load_encoder(path: Path) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """Read an encoder.

    Args:
        path: A run folder, or its encoder.safetensors with encoder.json beside it.

    Raises:
        UserError: There is none, or the files are of another kind.
    """
    folder = path if path.is_dir() else path.parent
    file = path / FILE if path.is_dir() else path
    if not file.is_file() or not (folder / CONFIG).is_file():
        raise UserError(f"no {FILE} with {CONFIG} in {folder}", "give the folder of a pretraining run that has ended")
    content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if content.pop("format", None) != FORMAT or content.pop("version", None) != 1:
        raise UserError(f"{folder / CONFIG} is not an encoder's config", "give the folder of a pretraining run")
    try:
        return EncoderConfig(**content), load_file(file)
    except SafetensorError as error:
        raise UserError(f"{file} is not a safetensors file ({error})", "give the folder of a pretraining run") from error
