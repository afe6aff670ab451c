"""A run folder with a tiny model and its encoder, untrained."""

from pathlib import Path
from typing import Any

import torch

from mae_kit.encoders.vit import ViT
from mae_kit.objectives import MAE
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import save_encoder, save_model

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.21, 0.22]


def make_mae(**arguments: Any) -> MAE:
    """4 x 4 patches of 8 pixels."""
    encoder = ViT("vit_tiny_patch16_224", 32, patch_size=8, embed_dim=24, depth=2, num_heads=2)
    return MAE(encoder, decoder_dim=16, decoder_depth=1, decoder_heads=2, **arguments).eval()


def write_run(folder: Path) -> Path:
    torch.manual_seed(0)
    mae = make_mae()
    config = ModelConfig(mae.encoder.name, mae.encoder.model_args, MEAN, STD, "mae", 1)
    save_model(folder, mae, config)
    save_encoder(folder, mae.encoder.model.state_dict(), config)
    return folder
