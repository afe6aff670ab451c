"""Safetensors files: written whole, and known by the header before any tensor is read."""

import os
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mae_kit.durable import replacing
from mae_kit.errors import UserError


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file that is either the old or the new one, whenever the power goes.

    Raises:
        OSError: The disk is full and the like.
    """
    contiguous = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with replacing(path) as making:
        try:
            save_file(contiguous, making, metadata)
        except SafetensorError as error:  # the system's number is in its text alone
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def read_header(file: Path, fix: str) -> dict[str, str]:
    """What a safetensors file says of itself; whatever this package writes has one key, its format.

    Args:
        file: It is there.
        fix: What to do about one of another kind.

    Raises:
        UserError: It is no safetensors file.
    """
    try:
        with safe_open(file, "pt") as opened:
            return opened.metadata() or {}
    except SafetensorError as error:
        raise UserError("tensor_file.read_header", f"{file} is not a safetensors file ({error})", fix) from error
