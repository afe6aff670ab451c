"""A regressor: a timm model that gives each image one or several numbers."""

from dataclasses import asdict, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mae_kit.encoders.timm_models import build
from mae_kit.files.tensor_file import REGRESSOR, damages, read_kind, save_kind
from mae_kit.weights.config import ModelConfig, parse_labeled
from mae_kit.weights.native import rebuilding_args


class Regressor(nn.Module):
    """A model of standardized numbers, and their mean and standard deviation in training.

    Args:
        model: timm's, [b c h w] normalized images -> [b t].
        numbers: t.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, numbers: int):
        super().__init__()
        self.backbone = model
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("std", torch.ones(numbers))

    def standardized(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b t"]:
        return self.backbone(images)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b t"]:
        """The numbers of normalized images."""
        return self.backbone(images).float() * self.std + self.mean


def save_regressor(folder: Path, regressor: Regressor, config: ModelConfig) -> Path:
    """Write regressor.safetensors into a folder that exists; the classes of the config are the names of the numbers."""
    whole = replace(config, model_args=rebuilding_args(regressor.backbone, config))
    return save_kind(folder, REGRESSOR, regressor.state_dict(), asdict(whole))


def load_regressor(path: Path | str) -> tuple[Regressor, ModelConfig]:
    """Rebuild the regressor of a run, in eval mode.

    Args:
        path: A fine-tuning run, or its regressor.safetensors.

    Raises:
        UserError: `regressor.missing`, `regressor.kind`, or `regressor.damaged`.
    """
    config, tensors = read_kind(path, REGRESSOR, parse_labeled)
    with damages(path, REGRESSOR):
        numbers = len(config.classes)
        regressor = Regressor(build(config.model, config.model_args, REGRESSOR.fix, num_classes=numbers), numbers)
        regressor.load_state_dict(tensors, strict=True)
    return regressor.eval(), config
