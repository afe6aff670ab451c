"""A backbone of timm's with a head, and its file: what a segmenter's and a detector's have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from mae_kit.encoders.timm_models import build
from mae_kit.files.tensor_file import Kind, damages, read_kind
from mae_kit.weights.config import ModelConfig


@dataclass(frozen=True)
class HeadedConfig:
    """What rebuilds a backbone with a head.

    Attributes:
        model: Of the backbone; classes are those of the head.
    """

    model: ModelConfig

    @property
    def classes(self) -> list[str]:
        return self.model.classes

    def build(self, backbone: nn.Module) -> Any:
        """Put the head on a backbone."""
        raise NotImplementedError

    def rebuild(self, fix: str) -> Any:
        """Build the backbone, too; `fix` is what the user can do where timm does not build it."""
        return self.build(build(self.model.model, self.model.model_args, fix, num_classes=0))


AnyConfig = TypeVar("AnyConfig", bound=HeadedConfig)


def load_headed(path: Path | str, kind: Kind, parse: Callable[[dict[str, Any]], AnyConfig]) -> tuple[Any, AnyConfig]:
    """Rebuild a model from its file, in eval mode; returns also its record.

    Args:
        path: A fine-tuning run, or its file.
        kind: What it has to hold.
        parse: Makes the record of the file's header.

    Raises:
        UserError: As of `read_kind`.
    """
    config, tensors = read_kind(path, kind, parse)
    with damages(path, kind):
        model = config.rebuild(kind.fix)
        model.load_state_dict(tensors, strict=True)
    return model.eval(), config
