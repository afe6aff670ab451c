"""The encoder of a run as it was before training: what its architecture alone is worth."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from mae_kit.configured import build
from mae_kit.encoder_file import load_encoder, save_encoder
from mae_kit.model_file import load_model


@contextmanager
def untrained_encoder(run: Path, seed: int) -> Iterator[Path]:
    """A folder with the encoder of a run under fresh weights, for as long as it is needed.

    Args:
        run: A pretraining run, or its model.safetensors.
        seed: Of the weights.

    Raises:
        UserError: There is no whole model.
    """
    trained = load_model(run).objective
    config, _ = load_encoder(run if run.is_dir() else run.parent)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = build(trained.config())
    fresh.load_state_dict(dict(trained.named_buffers()), strict=False)  # iGPT's palette is no training's work
    with TemporaryDirectory() as folder:
        save_encoder(Path(folder), fresh.encoder.model.state_dict(), replace(config, step=0))
        yield Path(folder)
