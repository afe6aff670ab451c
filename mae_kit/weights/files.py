"""Files of other programs, opened safely: tensors, the settings next to them, and nothing that runs; and written."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mae_kit.errors import UserError
from mae_kit.files.durable import replace_text
from mae_kit.files.json_file import read_json
from mae_kit.files.safe_pickle import load_tensors
from mae_kit.files.tensor_file import save_tensors

# Where checkpoints keep the weights, and the words by which they call a moving average of them.
_INSIDE = ("model", "module", "state_dict", "model_state", "model_state_dict", "student", "net", "network")
_INSIDE += ("weights", "params", "shadow_params")
_AVERAGE = re.compile(r"(?:^|_)(?:ema|avg|average|averaged|swa|teacher|momentum|target)(?:_|$)")
WEIGHTS, CONFIG, PREPROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"  # of a folder
_FIX = f"give a .safetensors file, a PyTorch file of tensors, or a folder with {CONFIG} and {WEIGHTS}"
_SINGLE = (WEIGHTS, "pytorch_model.bin")
_STARTS = {b"<": "a web page", b"version https://git-lfs": "a pointer of Git LFS, whose file was not fetched"}
_STARTS |= dict.fromkeys((b'{"error"', b"Entry not found", b"Invalid username"), "an error message of a server")


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


def read_raw(path: Path, average: bool | None = None) -> Raw:
    """Open a checkpoint.

    Args:
        path: A file, or a folder as transformers and timm write them.
        average: Which weights of a file that has both: their moving average, or the last ones.

    Raises:
        UserError: There is none, it is damaged, or it wants more than tensors and plain values; a folder holds several
            or lacks a part; or a file has both weights and their average, and `average` is not given.
    """
    folder = path if path.is_dir() else path.parent
    files = _weight_files(path) if path.is_dir() else [path]
    tensors: dict[str, Tensor] = {}
    settings: dict[str, Any] = {}
    for file in files:
        content = _content(file)
        tensors |= _tensors(file, content, average)
        found = content.get("args", content.get("config", content.get("hyper_parameters", {})))
        settings |= found if isinstance(found, dict) else {}
    beside = path.is_dir() or path.name in _SINGLE
    config, preprocessor = (_json(folder / name) if beside else {} for name in (CONFIG, PREPROCESSOR))
    return Raw(path, tensors, settings, config, preprocessor)


def write_raw(
    folder: Path, config: dict[str, Any], tensors: dict[str, Tensor], preprocessor: dict[str, Any] | None = None
) -> None:
    """Write a folder as transformers and timm do; it is made."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
    for name, content in ((CONFIG, config), (PREPROCESSOR, preprocessor)):
        if content is not None:
            replace_text(folder / name, json.dumps(content, indent=2) + "\n")


def _weight_files(folder: Path) -> list[Path]:
    """The one file, or the parts that an index lists, as transformers chooses them; others beside it do not count."""
    for name in _SINGLE:
        if (folder / name).is_file():
            return [folder / name]
        if (index := folder / f"{name}.index.json").is_file():
            return _parts(index)
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    if len(files) > 1:
        what = f"{folder} holds {', '.join(file.name for file in files[:3])}, and no {WEIGHTS} or its index"
        raise UserError("weights.several", what, "give one of these files")
    if not files:
        raise UserError("weights.missing.folder", f"{folder} holds no weights", _FIX)
    return files


def _parts(index: Path) -> list[Path]:
    listed = _json(index).get("weight_map")
    names = sorted({str(name) for name in listed.values()}) if isinstance(listed, dict) else []
    if not names or any(Path(name).name != name for name in names):
        raise UserError("weights.damaged.index", f"{index} does not list files of its folder", _FIX)
    for number, name in enumerate(names, 1):
        if not (index.parent / name).is_file():
            what = f"part {number} of {len(names)}, {name}, is missing in {index.parent}"
            raise UserError("weights.part", what, "fetch it")
    return [index.parent / name for name in names]


def _content(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise UserError("weights.missing.file", f"no file {file}", _FIX)
    with file.open("rb") as opened:
        start = opened.read(64).lstrip()
    if kind := next((kind for letters, kind in _STARTS.items() if start.startswith(letters)), ""):
        raise UserError("weights.download.kind", f"{file} is {kind}", "fetch the weights again")
    try:
        content = load_file(file) if file.suffix == ".safetensors" else load_tensors(file, settings=True)
    except SafetensorError as error:
        raise UserError("weights.damaged.safetensors", f"{file} is not a safetensors file ({error})", _FIX) from error
    except ValueError as error:
        raise UserError("weights.damaged.pickle", f"{file.parent / str(error)}", _FIX) from error
    if not isinstance(content, dict):
        raise UserError("weights.damaged", f"{file} holds no named tensors", _FIX)
    return content


def _tensors(file: Path, content: Mapping[str, Any], average: bool | None) -> dict[str, Tensor]:
    """The weights, wherever in the file they are."""
    last = [content[name] for name in _INSIDE if _holds_tensors(content.get(name))]
    averages = [inside for name, inside in content.items() if is_average(str(name)) and _is_average(inside)]
    if last and averages and average is None:
        what = f"{file} holds weights and their moving average"
        raise UserError("average", what, "import it with --average, or with --no-average for the last weights")
    for inside in averages + last if average else last + averages:
        return _tensors(file, inside if isinstance(inside, dict) else {}, average)
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError("weights.damaged", f"{file} holds no named tensors", _FIX)
    return tensors


def is_average(name: str) -> bool:
    """Whether the name of a part of a checkpoint is one of a moving average."""
    return bool(_AVERAGE.search(name))


def _holds_tensors(part: Any) -> bool:
    """Whether it is a state dict, or holds one."""
    if not isinstance(part, dict):
        return False
    inside = [part.get(name) for name in _INSIDE]
    return any(isinstance(value, Tensor) for value in part.values()) or any(map(_holds_tensors, inside))


def _is_average(part: Any) -> bool:
    """Whether it holds tensors, also without names: `torch_ema` has a list of them."""
    parts = part.values() if isinstance(part, dict) else [part]
    unnamed = (tensor for each in parts if isinstance(each, list | tuple) for tensor in each)
    return _holds_tensors(part) or any(isinstance(tensor, Tensor) for tensor in unnamed)


def _json(file: Path) -> dict[str, Any]:
    return read_json(file, "weights.damaged", _FIX) if file.is_file() else {}
