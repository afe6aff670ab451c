"""Files of other programs, opened safely: tensors, the settings beside them, and nothing that runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mae_kit.errors import UserError
from mae_kit.safe_pickle import load_tensors

_FIX = "give a .safetensors file, a PyTorch file of tensors, or a folder with config.json and model.safetensors"
_INSIDE = ("model", "module", "state_dict")  # where published checkpoints keep the weights
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


class Raw(NamedTuple):
    """What a file or folder holds, under its own names.

    Attributes:
        path: As given.
        tensors: The weights.
        settings: The arguments it was trained with, where the file has them.
        config: config.json, where there is one.
        preprocessor: preprocessor_config.json, where there is one.
    """

    path: Path
    tensors: dict[str, Tensor]
    settings: dict[str, Any]
    config: dict[str, Any]
    preprocessor: dict[str, Any]


def read_raw(path: Path) -> Raw:
    """Open a checkpoint.

    Args:
        path: A file, or a folder as transformers and timm write them.

    Raises:
        UserError: There is none, it is damaged, or it wants more than tensors and plain values.
    """
    folder = path if path.is_dir() else path.parent
    files = _weight_files(path) if path.is_dir() else [path]
    tensors: dict[str, Tensor] = {}
    settings: dict[str, Any] = {}
    for file in files:
        content = _content(file)
        tensors |= _tensors(file, content)
        found = content.get("args", content.get("config", {}))
        settings |= found if isinstance(found, dict) else {}
    beside = path.is_dir() or path.name in ("model.safetensors", "pytorch_model.bin")
    config, preprocessor = (
        _json(folder / name) if beside else {} for name in ("config.json", "preprocessor_config.json")
    )
    return Raw(path, tensors, settings, config, preprocessor)


def _weight_files(folder: Path) -> list[Path]:
    for pattern in _WEIGHTS:
        if files := sorted(folder.glob(pattern)):
            return files
    raise UserError("weights.missing", f"{folder} holds no weights", _FIX)


def _content(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise UserError("weights.missing", f"no file {file}", _FIX)
    try:
        content = load_file(file) if file.suffix == ".safetensors" else load_tensors(file, settings=True)
    except SafetensorError as error:
        raise UserError("weights.damaged", f"{file} is not a safetensors file ({error})", _FIX) from error
    except ValueError as error:
        raise UserError("weights.damaged", f"{file.parent / str(error)}", _FIX) from error
    if not isinstance(content, dict):
        raise UserError("weights.damaged", f"{file} holds no named tensors", _FIX)
    return content


def _tensors(file: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights, wherever in the file they are."""
    for inside in _INSIDE:
        if isinstance(content.get(inside), dict):
            return _tensors(file, content[inside])
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError("weights.damaged", f"{file} holds no named tensors", _FIX)
    return tensors


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError("weights.damaged", f"{file} is not JSON ({error})", _FIX) from error
    return content if isinstance(content, dict) else {}
