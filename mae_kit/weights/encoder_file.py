"""An encoder as a file others can use: safetensors under timm's own names, and a small config beside it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mae_kit import encoders as backbones  # noqa: F401  # timm then knows the models that are ours
from mae_kit.durable import replace_text
from mae_kit.errors import UserError
from mae_kit.tensor_file import read_header, save_tensors

FORMAT = "mae_kit-encoder"
FILE, CONFIG = "encoder.safetensors", "encoder.json"
_FIX = f"give the folder of a pretraining run, or its {FILE} with {CONFIG} beside it"


@dataclass(frozen=True)
class EncoderConfig:
    """What rebuilds the encoder: `timm.create_model(model, num_classes=0, **model_args)`.

    Attributes:
        model: timm's name.
        model_args: img_size, patch_size, in_chans and what else differs from the name's own.
        mean: Of each channel, in 0..1, that images were normalized with.
        std: Of each channel.
        objective: What it was pretrained with.
        step: Optimizer steps of pretraining.
        image_size: Height and width in pixels of the images of pretraining; None in files of others, whose arguments
            say it.
    """

    model: str
    model_args: dict[str, Any]
    mean: list[float]
    std: list[float]
    objective: str
    step: int
    image_size: list[int] | None = None


def save_encoder(folder: Path, tensors: dict[str, Tensor], config: EncoderConfig) -> None:
    """Write `encoder.safetensors` and `encoder.json`; the config is in the header too, so that the file is enough."""
    text = json.dumps({"format": FORMAT, "version": 1, **asdict(config)}, indent=2)
    save_tensors(folder / FILE, tensors, {FORMAT: text})
    replace_text(folder / CONFIG, text + "\n")


def load_encoder(path: Path) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """Read an encoder.

    Args:
        path: A run folder, or its encoder.safetensors with encoder.json beside it.

    Raises:
        UserError: There is none, or the files are of another kind.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError("encoder_file.load_encoder", f"no encoder at {file}", _FIX)
    config = _read_config(file)
    try:
        return config, load_file(file)
    except SafetensorError as error:
        raise UserError("encoder_file.load_encoder", f"{file} is damaged ({error})", _FIX) from error


def _read_config(file: Path) -> EncoderConfig:
    """From the file beside it, after the header has said that the tensors are an encoder's."""
    kinds = [key for key in read_header(file, _FIX) if key.startswith("mae_kit")]
    if FORMAT not in kinds:
        raise UserError(
            "encoder_file.read_config", f"{file} is no encoder ({', '.join(kinds) or 'made by another program'})", _FIX
        )
    config = file.parent / CONFIG
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
        version = content.pop("version"), content.pop("format")
        if version != (1, FORMAT):
            raise UserError(
                "encoder_file.read_config", f"{config} is of format {version[1]!r}, version {version[0]!r}", _FIX
            )
        return EncoderConfig(**content)
    except FileNotFoundError as error:
        raise UserError("encoder_file.read_config", f"no {CONFIG} beside {file}", _FIX) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError("encoder_file.read_config", f"{config} is not an encoder's config ({error})", _FIX) from error
