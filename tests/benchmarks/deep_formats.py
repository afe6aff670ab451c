"""Size and decoding time of an image of more than 8 bits in each format that a shard could store it in.

    python tests/benchmarks/deep_formats.py

Scenes are smooth noise with a little of sensor noise on top, as natural images compress.
"""

import io
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tifffile
from command import run
from PIL import Image
from turns import Way, table

SIDE = 256
SCENES = [("uint16", 1), ("uint16", 13), ("float32", 4)]


class Format(NamedTuple):
    """How an image is written and read."""

    name: str
    write: Callable[[np.ndarray], bytes]
    read: Callable[[bytes], np.ndarray]
    fits: Callable[[np.ndarray], bool] = lambda values: True


def scene(kind: str, bands: int) -> np.ndarray:
    """[256 256 bands], of 12 bits or so."""
    draw = np.random.default_rng(0)
    spectrum = np.fft.rfft2(draw.normal(size=(SIDE, SIDE, bands)), axes=(0, 1))
    rows, columns = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    falling = spectrum / np.maximum(np.hypot(rows, columns), 1 / SIDE)[..., None]
    smooth = np.fft.irfft2(falling, s=(SIDE, SIDE), axes=(0, 1))
    values = 2000 + 500 * smooth / smooth.std() + draw.normal(0, 4, smooth.shape)
    return values.clip(0, 4095).astype(kind)


def to_numpy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def from_numpy(data: bytes) -> np.ndarray:
    return np.lib.format.read_array(io.BytesIO(data))


def to_tiff(values: np.ndarray, compression: str | None) -> bytes:
    stream = io.BytesIO()
    predictor = compression is not None
    values, planar = (values, "contig") if values.shape[2] > 1 else (values[..., 0], None)
    how = {"photometric": "minisblack", "planarconfig": planar, "compression": compression, "predictor": predictor}
    tifffile.imwrite(stream, values, **how)  # type: ignore[arg-type]
    return stream.getvalue()


def from_tiff(data: bytes) -> np.ndarray:
    return tifffile.imread(io.BytesIO(data))


def to_png(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values[..., 0]).save(stream, "PNG")
    return stream.getvalue()


def from_png(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))[..., None]


FORMATS = [
    Format(".npy", to_numpy, from_numpy),
    Format("TIFF", lambda values: to_tiff(values, None), from_tiff),
    Format("TIFF, deflate and predictor", lambda values: to_tiff(values, "zlib"), from_tiff),
    Format("TIFF, zstd and predictor", lambda values: to_tiff(values, "zstd"), from_tiff),
    Format("PNG", to_png, from_png, lambda values: values.dtype == np.uint16 and values.shape[2] == 1),
]


def deep_formats(rounds: int = 20) -> dict[str, Any]:
    """Decode an image of each kind in each format, in turn.

    Args:
        rounds: How often.

    Returns:
        By kind of image, a row of the table for each format; `.npy` is the reference.
    """
    return {f"{bands} bands of {kind}": timed(scene(kind, bands), rounds) for kind, bands in SCENES}


def timed(values: np.ndarray, rounds: int) -> list[dict[str, Any]]:
    """The rows of an image."""
    ways = []
    for form in FORMATS:
        if form.fits(values):
            data = form.write(values)
            assert (form.read(data).reshape(values.shape) == values).all()
            name = f"{form.name}, {len(data) / 1e3:.0f} KB"
            ways.append(Way(name, partial(partial, form.read, data), 1))
    for _ in range(rounds):
        for way in ways:
            started, used = time.perf_counter(), time.process_time()
            way.make()()
            way.seconds.append(time.perf_counter() - started)
            way.core_seconds.append(time.process_time() - used)
    return table(ways)


if __name__ == "__main__":
    run(deep_formats)
