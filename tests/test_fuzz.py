"""Gate R18: bytes changed at random, in everything that is read from outside; typed errors are the only answer."""

import hashlib
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from gates import Measured
from hypothesis import strategies as st
from photos import jpeg, photo, write_shard

from mae_kit.data.decode import decode
from mae_kit.data.samples import read_shard
from mae_kit.encoder_file import EncoderConfig, load_encoder, save_encoder
from mae_kit.errors import BadImage, UserError
from mae_kit.pretraining import pretrain
from mae_kit.signature import parse
from mae_kit.training.checkpoint import DurableCheckpointIO

pytestmark = [pytest.mark.slow, pytest.mark.gate("R18")]

TIMES = 10_000
FEW = 150  # without --campaign
Fuzz = Callable[[str, list[bytes], Callable[[bytes], None]], None]


def mutate(data: bytes, dice: random.Random) -> bytes:
    """A few bytes flipped, overwritten, cut out, doubled or put in."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 5, 20))):
        place = dice.randrange(len(changed) + 1)
        length = dice.choice((1, 1, 4, 100))
        kind = dice.randrange(6)
        if kind == 0 and place < len(changed):
            changed[place] ^= 1 << dice.randrange(8)
        elif kind == 1:
            changed[place : place + length] = dice.randbytes(length)
        elif kind == 2:
            changed[place : place + length] = dice.choice((b"\0", b"\xff", b"9")) * length
        elif kind == 3:
            del changed[place : place + length]
        elif kind == 4:
            changed[place:place] = changed[place : place + length]
        elif place:
            del changed[place:]
    return bytes(changed)


@pytest.fixture
def fuzz(campaign: bool, measured: Measured) -> Fuzz:
    """Calls a reader with many mutations of some seeds; what it raises fails the test."""

    def run(what: str, seeds: list[bytes], read: Callable[[bytes], None]) -> None:
        times = TIMES if campaign else FEW

        @hypothesis.settings(max_examples=times, database=None)
        @hypothesis.given(st.sampled_from(seeds), st.randoms(use_true_random=False))
        def examples(seed: bytes, dice: random.Random) -> None:
            read(mutate(seed, dice))

        examples()
        measured(f"{times:,} {what}")

    return run


def test_images(fuzz: Fuzz):
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

    fuzz("images", [*seeds, file.getvalue()], read)


def test_tars(fuzz: Fuzz, tmp_path: Path):
    write_shard(tmp_path / "sound.tar", range(6))
    path = tmp_path / "a.tar"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        samples, problems = read_shard(path, path.name, 4, lambda count: None)
        assert all(s.offset >= 0 and s.offset + s.size <= len(data) and -1 <= s.label < 4 for s in samples)
        assert all(problem.reason for problem in problems)

    fuzz("tars", [(tmp_path / "sound.tar").read_bytes()], read)


def test_checkpoints(fuzz: Fuzz, tmp_path: Path):
    """With a manifest that fits the mutation, lest the hash find each of them."""
    folder = tmp_path / "step-00000001"
    state = {"step": 1, "model": {"w": torch.randn(9, 5)}, "counts": {"a": 1}, "plan": {"shards": {"a.tar": "12"}}}
    DurableCheckpointIO().save_checkpoint(state, folder)
    sound = (folder / "state.pt").read_bytes()

    def read(data: bytes) -> None:
        (folder / "state.pt").write_bytes(data)
        (folder / "manifest.json").write_text(json.dumps({"sha256": hashlib.sha256(data).hexdigest(), "step": 1}))
        try:
            DurableCheckpointIO().load_checkpoint(folder)
        except ValueError as error:
            assert str(error).startswith("step-00000001")

    fuzz("checkpoints", [sound], read)


def test_encoder_files(fuzz: Fuzz, tmp_path: Path):
    config = EncoderConfig("vit_tiny_patch16_224", {"img_size": 32}, [0.5], [0.5], "mae", 3)
    save_encoder(tmp_path, {"a": torch.randn(7)}, config)
    files = [tmp_path / "encoder.safetensors", tmp_path / "encoder.json"]
    sound = {path: path.read_bytes() for path in files}

    def read(data: bytes) -> None:
        which = files[data[:1] == b"{"]
        which.write_bytes(data)
        try:
            load_encoder(tmp_path)
        except UserError as error:
            assert str(error)
        which.write_bytes(sound[which])

    fuzz("encoder files", list(sound.values()), read)


def test_recipes(fuzz: Fuzz, recipes: Path, tmp_path: Path):
    path = tmp_path / "recipe.yaml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            parse(pretrain, "mae-kit pretrain", ["--config", str(path), "--run", "r", "--data.shards", "s"], "pretrain")
        except UserError as error:
            assert "\n" not in str(error)

    fuzz("recipes", [(recipes / "pretrain.yaml").read_bytes()], read)
