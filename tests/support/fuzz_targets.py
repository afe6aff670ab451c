"""Inputs from outside, for fuzzing: valid bytes to start from, and a reader that raises typed errors only."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from conftest import PRETRAIN

from mae_kit.cli.parser import parse
from mae_kit.commands.pretrain import pretrain
from mae_kit.data.decode import decode
from mae_kit.data.index.samples import read_shard
from mae_kit.errors import BadImage, UserError
from mae_kit.training.checkpoint import FORMAT, DurableCheckpointIO
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import save_encoder
from mae_kit.weights.recognize import load_encoder
from support.photo_shards import jpeg, photo, write_shard

Seeds = list[bytes]
Read = Callable[[bytes], None]


def images(folder: Path) -> tuple[Seeds, Read]:
    seeds = [jpeg(1)]
    for kind in ("PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF"):
        file = io.BytesIO()
        photo(2).save(file, kind)
        seeds.append(file.getvalue())
    file = io.BytesIO()
    np.save(file, np.zeros((4, 5, 3), np.uint8))

    def read(data: bytes) -> None:
        try:
            pixels = decode(data, max_pixels=10**6)
        except BadImage as error:
            assert str(error)
        else:
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3

    return [*seeds, file.getvalue()], read


def tars(folder: Path) -> tuple[Seeds, Read]:
    write_shard(folder / "sound.tar", range(6))
    path = folder / "a.tar"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        samples, problems = read_shard(path, path.name, 4, lambda count: None)
        assert all(s.offset >= 0 and s.offset + s.size <= len(data) and -1 <= s.label < 4 for s in samples)
        assert all(problem.reason for problem in problems)

    return [(folder / "sound.tar").read_bytes()], read


def checkpoints(folder: Path) -> tuple[Seeds, Read]:
    """Read with a manifest that matches the mutation, which its hash would reveal otherwise."""
    folder = folder / "step-00000001"
    state = {
        "global_step": 1,
        "model": {"w": torch.randn(9, 5)},
        "counts": {"a": 1},
        "plan": {"shards": {"a.tar": "12"}},
    }
    DurableCheckpointIO().save_checkpoint(state, folder)

    def read(data: bytes) -> None:
        (folder / "state.pt").write_bytes(data)
        (folder / "manifest.json").write_text(
            json.dumps({"sha256": hashlib.sha256(data).hexdigest(), "step": 1, "format": FORMAT})
        )
        try:
            DurableCheckpointIO().load_checkpoint(folder)
        except ValueError as error:
            assert str(error).startswith("step-00000001")

    return [(folder / "state.pt").read_bytes()], read


def encoder_files(folder: Path) -> tuple[Seeds, Read]:
    config = ModelConfig("vit_tiny_patch16_224", {"img_size": 32}, [0.5], [0.5], "mae", 3)
    save_encoder(folder, {"a": torch.randn(7)}, config)
    file = folder / "encoder.safetensors"

    def read(data: bytes) -> None:
        file.write_bytes(data)
        try:
            load_encoder(folder)
        except UserError as error:
            assert str(error)

    return [file.read_bytes()], read


def recipes(folder: Path) -> tuple[Seeds, Read]:
    path = folder / "recipe.yaml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            parse(pretrain, "mae-kit pretrain", ["--config", str(path), "--run", "r", "--data.path", "s"], "pretrain")
        except UserError as error:
            assert "\n" not in str(error)

    return [PRETRAIN.encode()], read


READERS = {"images": images, "tars": tars, "checkpoints": checkpoints, "encoder files": encoder_files}
READERS["recipes"] = recipes
