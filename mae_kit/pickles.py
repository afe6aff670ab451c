"""PyTorch's files without their danger: tensors and plain values are read, code is refused."""

import pickle
import re
from pathlib import Path
from typing import Any

import torch


class Settings(dict):
    """What stands in a file for somebody's settings object: its values, without its class."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state)


# Nearly every published checkpoint carries the arguments it was made with, as one of these.
SETTINGS: list[Any] = [(Settings, "argparse.Namespace"), (Settings, "yacs.config.CfgNode")]


def load_tensors(file: Path, map_location: Any = "cpu", settings: bool = False) -> Any:
    """Read what `torch.save` wrote.

    Args:
        file: The file.
        map_location: As torch.load takes it.
        settings: Accept the settings objects that published checkpoints carry; a `Settings` comes in their place.

    Raises:
        ValueError: It holds code or is damaged; the message says what it asked for.
    """
    try:
        with torch.serialization.safe_globals(SETTINGS if settings else []):
            return torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        what = f"beside tensors it wants {wanted[1]}" if wanted else "it holds more than tensors and plain values"
        raise ValueError(f"{file.name} is refused: {what}") from None
    except Exception as error:  # whatever torch trips over in a file that somebody has bent
        raise ValueError(f"{file.name} is no checkpoint ({type(error).__name__})") from error
