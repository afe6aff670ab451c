"""Inputs from outside, for fuzzing: valid bytes to start from, and a reader that raises typed errors only."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel
import numpy as np
import pydicom.data
import tifffile
import torch
from conftest import PRETRAIN
from PIL import Image

from mae_kit.cli.parser import parse
from mae_kit.commands.pretrain import pretrain
from mae_kit.data.decode import count_pages, decode, decode_raw
from mae_kit.data.index.samples import read_shard
from mae_kit.data.tiff import describe
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


def science_images(folder: Path) -> tuple[Seeds, Read]:
    """Of more than 8 bits: TIFFs, DICOM, NIfTI, .npz, .npy, JPEG XL and PNG."""
    values = np.arange(4 * 5 * 4, dtype=np.uint16).reshape(4, 5, 4)
    files = [io.BytesIO() for _ in range(5)]
    how: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(files[0], values, extratags=[describe(["B2", "B3", "B4", "B8"])], **how)
    tifffile.imwrite(files[1], np.moveaxis(values, 2, 0), compression="zlib", photometric="minisblack", ome=True)
    np.savez(files[2], first=values, second=values[..., 0])
    np.save(files[3], values.astype(np.float32))
    Image.fromarray(values[..., 0]).save(files[4], "PNG")
    others = nibabel.Nifti1Image(values.astype(np.int16), np.eye(4)).to_bytes(), imagecodecs.jpegxl_encode(values)
    scan = pydicom.data.get_testdata_file("CT_small.dcm", download=False)

    def read(data: bytes) -> None:
        try:
            raw = decode_raw(data, 0, max_pixels=10**6, page=count_pages(data, 10**6) - 1)
        except BadImage as error:
            assert str(error)
        else:
            assert raw is None or (raw.values.ndim == 3 and len(raw.names) in (0, raw.values.shape[2]))

    return [*(file.getvalue() for file in files), *map(bytes, others), Path(str(scan)).read_bytes()], read


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
READERS |= {"recipes": recipes, "science images": science_images}
