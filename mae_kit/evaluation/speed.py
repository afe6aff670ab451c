"""What an encoder costs at an image size: time, and memory as a fresh process sees it."""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psutil
import torch

from mae_kit.encoders import Encoder, create_encoder
from mae_kit.parallel.device import frozen_device
from mae_kit.training.precision import Precision, half_type

SECONDS, PASSES = 1.0, 3  # to measure for, at the least
_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Cost(NamedTuple):
    """Of encoding batches without gradients.

    Attributes:
        images_per_second: From the median of several batches that are on the device already.
        batch_mb: Peak of the memory in 10^6 bytes that a batch and all that is computed from it take, weights not
            counted; None where the system does not tell.
    """

    images_per_second: float
    batch_mb: float | None


def encoder_cost(
    name: str, model_args: dict[str, Any], image_size: tuple[int, int], batch_size: int, precision: Precision
) -> Cost | None:
    """Measure an encoder in a process of its own, whose memory nobody else has stretched; None if it is too large.

    Args:
        name: timm's name.
        model_args: timm's arguments, whose img_size is replaced.
        image_size: Height and width in pixels.
        batch_size: Images at once.
        precision: As in training.

    Raises:
        UserError: The encoder is not made for the size: its patch does not divide it, for one.
    """
    with torch.device("meta"):
        _of_size(name, model_args, image_size)  # a size that cannot be is told at once
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(measure, name, model_args, image_size, batch_size, precision).result()
    except (BrokenProcessPool, torch.OutOfMemoryError):
        return None


def measure(
    name: str, model_args: dict[str, Any], image_size: tuple[int, int], batch_size: int, precision: Precision
) -> Cost:
    """The same in this process. What the weights are is no matter."""
    device = frozen_device()
    encoder = _of_size(name, model_args, image_size).eval().to(device)
    half = half_type(precision, device)
    with torch.no_grad(), torch.autocast(device, half, enabled=half is not None):
        encoder(torch.randn(1, encoder.channels, *image_size, device=device))  # libraries make themselves at home
        growth = memory_growth(device)
        images = torch.randn(batch_size, encoder.channels, *image_size, device=device)
        times = [_timed(encoder, images)]
        while sum(times[1:]) < SECONDS or len(times) <= PASSES:
            times.append(_timed(encoder, images))
        return Cost(batch_size / median(times[1:]), growth())


def _of_size(name: str, model_args: dict[str, Any], image_size: tuple[int, int]) -> Encoder:
    return create_encoder(name, {key: value for key, value in model_args.items() if key != "img_size"}, image_size)


def _timed(encoder: Encoder, images: torch.Tensor) -> float:
    started = time.perf_counter()
    encoder(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def memory_growth(device: str) -> Callable[[], float | None]:
    """From now on to the peak, in 10^6 bytes: what torch has allocated on a GPU, what the process holds elsewhere."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        return lambda: (torch.cuda.max_memory_allocated() - before) / 1e6
    if not _FORGET.exists():
        return lambda: None
    _FORGET.write_text("5")  # the peak starts anew; that of getrusage cannot, and begins with the parent's
    before = psutil.Process().memory_info().rss
    return lambda: (_peak_bytes() - before) / 1e6


def _peak_bytes() -> int:
    (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])
