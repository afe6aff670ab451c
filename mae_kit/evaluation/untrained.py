"""The encoder of a run under fresh weights: what its architecture alone is worth."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from mae_kit.configured import build
from mae_kit.encoders import create_encoder
from mae_kit.weights.encoder_file import EncoderConfig, load_encoder, save_encoder
from mae_kit.weights.model_file import load_model
from mae_kit.weights.native import CLASSIFIER, file_of, kind_of, read
from mae_kit.weights.pretrained import fresh_timm

Tensors = dict[str, Tensor]
_KEPT = ("palette",)  # of an iGPT, which is no training's work


@contextmanager
def untrained_encoder(run: Path, seed: int) -> Iterator[Path]:
    """A folder with the encoder of a run under fresh weights, for as long as it is needed.

    Args:
        run: A pretraining or fine-tuning run, or its model.safetensors or classifier.safetensors. Of a fine-tuning the
            weights are those that it begins with from scratch under this seed.
        seed: Of the weights.

    Raises:
        UserError: There is no whole model, or no encoder of ours is like that of the classifier.
    """
    file = file_of(run)
    with torch.random.fork_rng():
        config, tensors = _of_classifier(file, seed) if file and kind_of(file) == CLASSIFIER else _of_model(run, seed)
    with TemporaryDirectory() as folder:
        save_encoder(Path(folder), tensors, replace(config, step=0))
        yield Path(folder)


def _of_model(run: Path, seed: int) -> tuple[EncoderConfig, Tensors]:
    trained = load_model(run).objective
    config, _ = load_encoder(run if run.is_dir() else run.parent)
    torch.manual_seed(seed)
    fresh = build(trained.config)
    learned = dict(trained.named_parameters())
    kept = {name: buffer for name, buffer in trained.state_dict().items() if name not in learned}
    fresh.load_state_dict(fresh.state_dict() | kept)
    return config, fresh.encoder.model.state_dict()


def _of_classifier(file: Path, seed: int) -> tuple[EncoderConfig, Tensors]:
    """Without the head; of a norm that is behind the pooling the name before it."""
    weights = read(file)
    config = weights.encoder
    with torch.device("meta"):
        names = create_encoder(config.model, config.model_args, config.image_size).model.state_dict()
    torch.manual_seed(seed)
    start = fresh_timm(weights).state_dict()
    start |= {name: weights.tensors[name] for name in _KEPT if name in start}
    return config, {name: start[name if name in start else f"fc_{name}"] for name in names}
