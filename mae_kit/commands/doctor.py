"""`mae-kit doctor`: what this machine has, and whether a killed run resumes exactly on it."""

import logging
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from mae_kit.commands.shard import shard
from mae_kit.console import warnings_only
from mae_kit.durable import replacing
from mae_kit.errors import UserError
from mae_kit.parallel.processes import cores
from mae_kit.training.metrics import FILE as METRICS
from mae_kit.training.metrics import json_lines
from mae_kit.training.precision import resolve_with_reason

log = logging.getLogger(__name__)

PACKAGES = ("mae_kit", "torch", "pytorch-lightning", "timm", "webdataset", "kornia", "simplejpeg")
IMAGES, BATCH, EPOCHS = 96, 16, 5
KILL_AFTER = (2, 10, 20)  # steps of the 30
SECONDS = 300  # for a process that hangs
DISK_BYTES = 32_000_000


def doctor(self_test: bool = False, folder: Path = Path()) -> dict[str, Any]:
    """List what training will use on this machine; with --self-test kill a small run while it saves, and resume it.

    Args:
        self_test: Also train for about a minute on the CPU: a run that is killed three times must end with weights and
            losses bit-identical to those of an uninterrupted one.
        folder: Where runs will be: its disk is tested.

    Returns:
        What was found, by name.

    Raises:
        UserError: The folder cannot be written, or a killed run does not resume exactly.
    """
    found = _machine() | _disk(folder)
    for name, value in found.items():
        log.info(f"{name}: {value}")
    return found | (_survives(folder) if self_test else {})


def _machine() -> dict[str, Any]:
    versions = {name: metadata.version(name) for name in PACKAGES}
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return {
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "system": platform.platform(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "device": f"{torch.accelerator.device_count()} x {accelerator.type}" if accelerator else "processor",
        "precision": resolve_with_reason("auto")[1],
    }


def _disk(folder: Path) -> dict[str, Any]:
    """Free space, and how fast the disk writes a file durably."""
    started = time.perf_counter()
    try:
        with replacing(folder / "mae_kit-doctor") as making:
            making.write_bytes(os.urandom(DISK_BYTES))
        (folder / "mae_kit-doctor").unlink()
    except OSError as error:
        raise UserError(
            "doctor.disk", f"cannot write to {folder.absolute()} ({error.strerror})", "choose another --folder"
        ) from None
    seconds = time.perf_counter() - started
    free = shutil.disk_usage(folder).free / 1e9
    return {"free_disk_gb": round(free, 1), "durable_megabytes_per_second": round(DISK_BYTES / 1e6 / seconds)}


# The self-test


def _survives(folder: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mae_kit-doctor-", dir=folder) as name:
        place = Path(name)
        _write_shards(place)
        log.info(f"a run of {IMAGES * EPOCHS // BATCH} steps, uninterrupted ...")
        with _started(_first(place, "alone"), place / "alone.log") as process:
            _end(process, place / "alone.log")
        run, log_file, kills = place / "killed", place / "killed.log", 0
        words = _first(place, "killed")
        for step in KILL_AFTER:
            with _started(words, log_file) as process:
                kills += _kill(process, run / "checkpoints", step)
            words = ["pretrain", "--resume", str(run)]
        with _started(words, log_file) as process:
            _end(process, log_file)
        if not kills:
            raise UserError(
                "doctor.survives", "the small run always ended before it could be killed", "please report it"
            )
        return {"kills": kills, **_compare(place / "alone", run)}


def _write_shards(place: Path) -> None:
    noise = np.random.default_rng(0)
    for number in range(IMAGES):
        path = place / "images" / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (32, 32), dtype=np.uint8)).save(path)
    with warnings_only():
        shard(str(place / "images"), place / "shards", channels=1, workers=1)


def _first(place: Path, name: str) -> list[str]:
    encoder = "--objective.init_args.encoder.init_args"
    words = ["pretrain", "--config", "demo_digits", "--data.path", str(place / "shards"), "--run", str(place / name)]
    words += [f"{encoder}.embed_dim", "48", f"{encoder}.depth", "2", "--data.batch_size", str(BATCH)]
    words += ["--optimization.epochs", str(EPOCHS), "--optimization.warmup_epochs", "1"]
    return [
        *words,
        "--intervals.log_every_n_steps",
        "1",
        "--intervals.checkpoint_every_n_steps",
        "2",
        "--machine.precision",
        "fp32",
    ]


@contextmanager
def _started(words: list[str], log_file: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a training process on one CPU thread, where the order of arithmetic is fixed."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with open(log_file, "w") as out:
        command = [sys.executable, "-m", "mae_kit", *words]
        process = subprocess.Popen(command, stdout=out, stderr=out, text=True, env=environment)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _end(process: "subprocess.Popen[str]", log_file: Path) -> None:
    _wait(lambda: process.poll() is not None)
    if process.returncode:
        last = (log_file.read_text(encoding="utf-8", errors="replace").splitlines() or ["it printed nothing"])[-1]
        raise UserError("doctor.end", f"a small training ends with exit code {process.returncode}", last)


def _kill(process: "subprocess.Popen[str]", checkpoints: Path, step: int) -> bool:
    """Kill a process after a step is saved, when it may be saving the next; returns whether it was still running."""
    _wait(lambda: process.poll() is not None or _newest(checkpoints) >= step)
    time.sleep(random.uniform(0, 0.03))
    alive = process.poll() is None
    process.kill()
    log.info(f"the same, killed after step {_newest(checkpoints)}" if alive else "it ended before it could be killed")
    return alive


def _newest(checkpoints: Path) -> int:
    return max((int(path.name.removeprefix("step-")) for path in checkpoints.glob("step-*")), default=0)


def _wait(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not seen():
        if time.monotonic() > deadline:
            raise UserError(
                "doctor.wait",
                f"a training makes no progress in {SECONDS} seconds",
                "see what else is running here",
            )
        time.sleep(0.002)


def _compare(alone: Path, killed: Path) -> dict[str, Any]:
    curves = [_curve(run) for run in (alone, killed)]
    weights = [(run / "model.safetensors").read_bytes() for run in (alone, killed)]
    if curves[0] != curves[1] or weights[0] != weights[1]:
        what = "curve" if curves[0] != curves[1] else "weights"
        raise UserError(
            "doctor.compare",
            f"a killed run ends with a different {what}",
            "please report it with the lines above",
        )
    log.info(f"the same weights and losses of {len(curves[0])} steps, bit for bit")
    return {"self_test": "bit-identical", "steps": len(curves[0])}


def _curve(run: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in json_lines(run / METRICS) if "loss" in row]
