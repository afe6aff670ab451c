"""PyTorch's files without their danger: tensors and plain values are read, code is refused."""

import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor


class Settings(dict):
    """What stands in a file for somebody's settings object: its values, without its class."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state)


class Part:
    """What stands in a file for a module: its parameters and parts, without its class."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.parameters, self.parts = state["_parameters"], state["_modules"]

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """All parameters under the names that a state dict would give them."""
        yield from ((prefix + name, tensor.detach()) for name, tensor in self.parameters.items() if tensor is not None)
        for name, part in self.parts.items():
            yield from part.tensors(f"{prefix}{name}.")


class Plain:
    """What stands in a file for a subclass of dict: an ordered one, of which torch reads items and attributes."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


class PathText(str):
    """What stands in a file for a path: its text."""

    def __new__(cls, *parts: str) -> "PathText":
        return super().__new__(cls, PurePosixPath(*parts))


def number(kind: Any, data: bytes = b"") -> float | int | bool | None:
    """What stands in a file for a numpy scalar: the plain number of its bytes; None for other kinds."""
    letter = {
        "f": {2: "e", 4: "f", 8: "d"},
        "i": {1: "b", 2: "h", 4: "i", 8: "q"},
        "u": {1: "B", 2: "H", 4: "I", 8: "Q"},
    }
    code = "?" if kind.name[:1] == "b" else letter.get(kind.name[:1], {}).get(len(data))
    return struct.unpack(f"<{code}", data)[0] if code and data else None


class Kind:
    """What stands in a file for a numpy dtype: its name, as f8."""

    def __init__(self, name: str = "", *rest: Any):
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """The byte order, which is little-endian on every machine that trains."""


class Array:
    """What stands in a file for a numpy array among the settings: nothing of it."""

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        """The shape and the bytes."""


_DICTS = ["collections.defaultdict", "addict.addict.Dict", "easydict.EasyDict", "munch.Munch", "yacs.config.CfgNode"]
_DICTS += ["fvcore.common.config.CfgNode", "detectron2.config.config.CfgNode"]
_DICTS += ["mmcv.utils.config.ConfigDict", "mmengine.config.config.ConfigDict"]
for _package in ("lightning_fabric", "pytorch_lightning", "lightning.fabric", "lightning.pytorch"):
    _DICTS += [f"{_package}.utilities.{part}.AttributeDict" for part in ("data", "parsing")]
_FACTORIES = ("dict", "list", "int", "float", "str", "bool")  # of a defaultdict, which never call one here
# Nearly every published checkpoint carries the arguments it was made with, as some of these.
SETTINGS: list[Any] = [
    (Settings, "argparse.Namespace"),
    (Settings, "types.SimpleNamespace"),
    *((Plain, name) for name in _DICTS),
    *((Plain, f"builtins.{name}") for name in _FACTORIES),
    *((PathText, f"pathlib.{name}") for name in ("PosixPath", "WindowsPath", "_local.PosixPath", "_local.WindowsPath")),
    *((number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((Array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    (Array, "numpy.ndarray"),
    (Kind, "numpy.dtype"),
]


def load_tensors(file: Path, map_location: Any = "cpu", settings: bool = False) -> Any:
    """Read what `torch.save` wrote.

    Args:
        file: The file.
        map_location: As torch.load takes it.
        settings: Accept the settings objects that published checkpoints carry; a `Settings` comes in their place.

    Raises:
        ValueError: It holds code or is damaged; the message says what it asked for.
    """
    return _load(file, map_location, SETTINGS if settings else [])


def load_module(file: Path, classes: Sequence[str]) -> dict[str, Tensor]:
    """Read the parameters of a module that was saved whole, not as a state dict.

    Args:
        file: The file.
        classes: Full names of the classes of its parts, none of which is imported.

    Raises:
        ValueError: It holds other code, is no module or is damaged, or is older than torch 1.6: such a file cannot be
            read without importing the classes.
    """
    if file.is_file() and not zipfile.is_zipfile(file):
        remedy = "torch.save(torch.load(FILE, weights_only=False), FILE) where its package is installed makes it one"
        raise ValueError(f"{file.name} is not the zip file that torch writes since 1.6; if you trust it, {remedy}")
    module = _load(file, "cpu", [(Part, name) for name in classes])
    if not isinstance(module, Part):
        raise ValueError(f"{file.name} holds no module")
    return dict(module.tensors())


def _load(file: Path, map_location: Any, stand_ins: list[Any]) -> Any:
    try:
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        what = f"besides tensors it would load {wanted[1]}" if wanted else "it holds more than tensors and plain values"
        raise ValueError(f"{file.name} is refused: {what}") from None
    except Exception as error:  # whatever torch trips over in a file that somebody has bent
        raise ValueError(f"{file.name} is not a checkpoint ({type(error).__name__})") from error
