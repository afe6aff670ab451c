"""The encoder of a run with fresh weights: the baseline of its architecture."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mae_kit.classes.configured import build
from mae_kit.encoders import create_encoder
from mae_kit.files.tensor_file import CLASSIFIER, kind_of
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import file_of, load_model, read
from mae_kit.weights.pretrained import fresh_timm, load_weights

_KEPT = ("palette",)  # of an iGPT: found before training


def untrained_encoder(run: Path, seed: int) -> Any:
    """Build the encoder of a run with fresh weights.

    Args:
        run: A pretraining or fine-tuning run, or its model.safetensors or classifier.safetensors. The weights are those
            that a training from scratch begins with under this seed.
        seed: Of the weights.

    Returns:
        As `load_encoder`.

    Raises:
        UserError: There is no whole model, or no encoder of ours is like that of the classifier.
    """
    file = file_of(run)
    with torch.random.fork_rng():
        if file and kind_of(file) == CLASSIFIER.name:
            config, tensors = _of_classifier(file, seed)
        else:
            config, tensors = _of_model(run, seed)
    return load_weights(replace(config, step=0), tensors, str(run))


def _of_model(run: Path, seed: int) -> tuple[ModelConfig, dict[str, Any]]:
    trained: Any = load_model(run)
    torch.manual_seed(seed)
    fresh = build(trained.config)
    learned = dict(trained.named_parameters())
    kept = {name: buffer for name, buffer in trained.state_dict().items() if name not in learned}
    fresh.load_state_dict(fresh.state_dict() | kept)
    return trained.encoder.pretrained_cfg, fresh.encoder.model.state_dict()


def _of_classifier(file: Path, seed: int) -> tuple[ModelConfig, dict[str, Any]]:
    """Without the head; a norm behind the pooling (fc_norm) goes back to its place before it."""
    weights = read(file)
    config = weights.config
    with torch.device("meta"):
        names = create_encoder(config.model, config.model_args, config.image_size).model.state_dict()
    torch.manual_seed(seed)
    start = fresh_timm(weights).state_dict()
    start |= {name: weights.tensors[name] for name in _KEPT if name in start}
    return config, {name: start[name if name in start else f"fc_{name}"] for name in names}
