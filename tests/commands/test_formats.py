"""Every format of more than 8 bits: packed to the same shards, with the same statistics, and predicted on alike."""
# Also tests data/packing/deep.py.

import io
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from support.tiny_models import ARGS, tiny_classifier
from support.volumes import dicom, nifti

import mae_kit as mk
from mae_kit.data.index.open import open_index
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import save_classifier

IMAGES = 6


def image(number: int, bands: int) -> np.ndarray:
    """[20 24 bands] of 12 bits."""
    return np.random.default_rng(number).integers(0, 4096, (20, 24, bands), dtype=np.uint16)


def tiff(values: np.ndarray, **how: Any) -> bytes:
    stream = io.BytesIO()
    how |= {} if values.shape[2] == 1 else {"planarconfig": "contig"}
    tifffile.imwrite(stream, values.squeeze(), photometric="minisblack", **how)
    return stream.getvalue()


def npz(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, image=values)
    return stream.getvalue()


def npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def ome(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values[..., 0], photometric="minisblack", ome=True)
    return stream.getvalue()


ANY: dict[str, Callable[[np.ndarray], bytes]] = {
    "BigTIFF.tif": lambda values: tiff(values, bigtiff=True),
    "big endian.tif": lambda values: tiff(values, byteorder=">"),
    "tiles.tif": lambda values: tiff(values, tile=(16, 16), compression="zlib", predictor=True),
    "npy.npy": npy,
    "npz.npz": npz,
    "PNG.png": lambda values: bytes(imagecodecs.png_encode(values.squeeze())),
    "JPEG XL.jxl": lambda values: bytes(imagecodecs.jpegxl_encode(values.squeeze(), lossless=True)),
}
GRAY: dict[str, Callable[[np.ndarray], bytes]] = {
    "OME.tif": ome,
    "DICOM.dcm": lambda values: dicom(values[..., 0]),
    "NIfTI.nii": lambda values: nifti(values[..., 0].T),
}
CASES = [(1, name) for name in [*ANY, *GRAY]] + [(3, name) for name in ANY]


def pack(folder: Path, bands: int, suffix: str, write: Callable[[np.ndarray], bytes]) -> dict[str, Any]:
    """Write files `in/N.suffix` and their shards `out`; returns what `shard` does."""
    (folder / "in").mkdir(parents=True)
    for number in range(IMAGES):
        (folder / f"in/{number}.{suffix}").write_bytes(write(image(number, bands)))
    return mk.shard(str(folder / "in"), folder / "out", workers=1)


def numbers(stats: dict[str, Any]) -> list[float]:
    """All of the statistics, and both ends of the scale."""
    bands = [value for values in stats["bands"].values() for value in values]
    return [*stats["mean"], *stats["std"], *bands, *stats["scale"]["low"], *stats["scale"]["high"]]


def stored(folder: Path) -> dict[str, bytes]:
    """Members of the shards by the names of their images."""
    index = open_index(folder / "out")
    return {Path(index.file(row)).stem: index.read(row) for row in range(len(index))}


def predicted(folder: Path, run: Path) -> dict[str, dict[str, float]]:
    """Probabilities of the likeliest classes, by the names of the images."""
    found = mk.predict(run, [folder / "in"])["predictions"]
    return {Path(one["image"]).stem: one["classes"] for one in found}


@pytest.fixture(scope="module")
def tiffs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[Path, dict[str, Any]]]:
    """Returns, for a number of bands, a folder of TIFFs with shards and a classifier `run`, and what `shard` says."""

    @cache
    def make(bands: int) -> tuple[Path, dict[str, Any]]:
        folder = tmp_path_factory.mktemp("tiffs")
        stats = pack(folder, bands, "tif", tiff)
        args: dict[str, Any] = ARGS | {"in_chans": bands, "global_pool": "avg"}
        record = ModelConfig("vit_base_patch16_224", args, stats["mean"], stats["std"], image_size=(32, 32))
        (folder / "run").mkdir()
        record = replace(record, classes=list("abcde"), scale=open_index(folder / "out").scale)
        save_classifier(folder / "run", tiny_classifier(in_chans=bands), record)
        return folder, stats

    return make


@pytest.mark.parametrize(("bands", "name"), CASES)
def test_a_format_is_packed_and_predicted_on_as_a_tiff(
    bands: int, name: str, tiffs: Callable[[int], tuple[Path, dict[str, Any]]], tmp_path: Path
):
    """The shards hold the same bytes, so whatever reads them, statistics and training, is the same."""
    folder, expected = tiffs(bands)
    stats = pack(tmp_path, bands, name.partition(".")[2], (ANY | GRAY)[name])
    assert numbers(stats) == pytest.approx(numbers(expected), rel=1e-9)  # images come in another order
    assert (stats["scale"]["kind"], stats["skipped"]) == (expected["scale"]["kind"], 0)
    assert stored(tmp_path) == stored(folder) and len(stored(folder)) == IMAGES
    found = predicted(tmp_path, folder / "run")
    assert found == predicted(folder, folder / "run") and len({str(each) for each in found.values()}) == IMAGES
