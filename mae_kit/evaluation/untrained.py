"""The encoder of a run as it was before training: what its architecture alone is worth."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from mae_kit.backbones import backbone
from mae_kit.configured import build
from mae_kit.encoder_file import EncoderConfig, load_encoder, save_encoder
from mae_kit.formats.ours import CLASSIFIER, file_of, kind_of, read
from mae_kit.model_file import load_model


@contextmanager
def untrained_encoder(run: Path, seed: int) -> Iterator[Path]:
    """A folder with the encoder of a run under fresh weights, for as long as it is needed.

    An iGPT keeps its palette, which is no training's work.

    Args:
        run: A pretraining or fine-tuning run, or its model.safetensors or classifier.safetensors. The encoder starts as
            that training does: a pretraining's as its objective says, a classifier's as timm says.
        seed: Of the weights.

    Raises:
        UserError: There is no whole model, or no encoder of ours is like that of the classifier.
    """
    file = file_of(run)
    with torch.random.fork_rng():
        config, fresh = _of_classifier(file, seed) if file and kind_of(file) == CLASSIFIER else _of_model(run, seed)
    with TemporaryDirectory() as folder:
        save_encoder(Path(folder), fresh.state_dict(), replace(config, step=0))
        yield Path(folder)


def _of_model(run: Path, seed: int) -> tuple[EncoderConfig, nn.Module]:
    trained = load_model(run).objective
    config, _ = load_encoder(run if run.is_dir() else run.parent)
    torch.manual_seed(seed)
    fresh = build(trained.config())
    fresh.load_state_dict(dict(trained.named_buffers()), strict=False)
    return config, fresh.encoder.model


def _of_classifier(file: Path, seed: int) -> tuple[EncoderConfig, nn.Module]:
    weights = read(file)
    config = weights.encoder
    torch.manual_seed(seed)
    fresh = backbone(config.model, config.model_args, config.image_size).model
    buffers = {name: weights.tensors[name] for name, _ in fresh.named_buffers() if name in weights.tensors}
    fresh.load_state_dict(buffers, strict=False)
    return config, fresh
