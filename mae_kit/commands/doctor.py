"""Report what this machine has, and test that a killed run resumes on it bit for bit."""

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
from mae_kit.comparison.orchestrate import Step
from mae_kit.comparison.steps import training
from mae_kit.console import warnings_only
from mae_kit.data.loading.loader import SHARED_MEMORY
from mae_kit.errors import UserError
from mae_kit.files.durable import replacing
from mae_kit.files.run_folder import CheckpointFolder, RunFolder
from mae_kit.parallel.processes import cores
from mae_kit.training.checkpoint import checkpoints_in
from mae_kit.training.metrics import json_lines
from mae_kit.training.precision import resolve_with_reason

log = logging.getLogger(__name__)

PACKAGES = ("mae_kit", "torch", "pytorch-lightning", "timm", "webdataset", "kornia", "simplejpeg")
IMAGES, BATCH, EPOCHS = 96, 16, 5
KILL_AFTER = (2, 10, 20)  # steps of the 30
SECONDS = 300  # for a process that hangs
DISK_BYTES = 32_000_000


def doctor(*, self_test: bool = False, folder: Path = Path()) -> dict[str, Any]:
    """Report versions, device, memory and disk; with --self-test, kill a small run while it saves, resume and compare.

    Args:
        self_test: Also train for about a minute on the CPU: a run that is killed three times must end with the same
            weights and losses, bit for bit, as one that is never killed.
        folder: A folder on the disk where runs will go.

    Returns:
        The report.

    Raises:
        UserError: The folder cannot be written, or the runs differ.
    """
    found = _machine() | _disk(folder)
    for name, value in found.items():
        log.info(f"{name}: {value}")
    return found | (_test_resume(folder) if self_test else {})


def _machine() -> dict[str, Any]:
    versions = {name: metadata.version(name) for name in PACKAGES}
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return {
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "system": platform.platform(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "shared_memory_gb": _free_shared_memory(),
        "device": f"{torch.accelerator.device_count()} x {accelerator.type}" if accelerator else "processor",
        "precision": resolve_with_reason("auto")[1],
    }


def _free_shared_memory() -> float | None:
    """What batches travel through; None where the system has no such folder."""
    return round(shutil.disk_usage(SHARED_MEMORY).free / 1e9, 3) if os.path.isdir(SHARED_MEMORY) else None


def _disk(folder: Path) -> dict[str, Any]:
    """Return free space, and the speed of writes that are flushed to the disk."""
    started = time.perf_counter()
    try:
        with replacing(folder / "mae_kit-doctor") as making:
            making.write_bytes(os.urandom(DISK_BYTES))
        (folder / "mae_kit-doctor").unlink()
    except OSError as error:
        problem = f"cannot write to {folder.absolute()} ({error.strerror})"
        raise UserError("folder", problem, "choose another --folder") from None
    seconds = time.perf_counter() - started
    free = shutil.disk_usage(folder).free / 1e9
    return {"free_disk_gb": round(free, 1), "durable_megabytes_per_second": round(DISK_BYTES / 1e6 / seconds)}


# The self-test


def _test_resume(folder: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mae_kit-doctor-", dir=folder) as name:
        place = Path(name)
        _write_shards(place)
        whole, killed = (_step(place, run) for run in ("whole", "killed"))
        log.info(f"training {IMAGES * EPOCHS // BATCH} steps without interruption ...")
        _finish(whole.start, place / "whole.log")
        kills, words, log_file = 0, killed.start, place / "killed.log"
        for step in KILL_AFTER:
            with _started(words, log_file) as process:
                kills += _kill(process, RunFolder(killed.run).checkpoints, step)
            words = killed.resume
        _finish(words, log_file)
        if not kills:
            raise UserError("doctor.kills", "every run ended before it could be killed", "please report it")
        return {"kills": kills, **_compare(whole.run, killed.run)}


def _write_shards(place: Path) -> None:
    noise = np.random.default_rng(0)
    for number in range(IMAGES):
        path = place / "images" / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (32, 32), dtype=np.uint8)).save(path)
    with warnings_only():
        shard(str(place / "images"), place / "shards", channels=1, workers=1)


def _step(place: Path, name: str) -> Step:
    encoder = "objective.init_args.encoder.init_args"
    options = {f"{encoder}.embed_dim": 48, f"{encoder}.depth": 2, "data.batch_size": BATCH}
    options |= {"optimization.epochs": EPOCHS, "optimization.warmup_epochs": 1, "machine.precision": "fp32"}
    options |= {"intervals.log_every_n_steps": 1, "intervals.checkpoint_every_n_steps": 2}
    return training("pretrain", "demo_digits", options, {"data.path": str(place / "shards")}, place / name)


@contextmanager
def _started(words: list[str], log_file: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a child process on one thread of the processor, where the order of additions is fixed."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with open(log_file, "w") as out:
        command = [sys.executable, "-m", "mae_kit", *words]
        process = subprocess.Popen(command, stdout=out, stderr=out, text=True, env=environment)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _finish(words: list[str], log_file: Path) -> None:
    with _started(words, log_file) as process:
        _wait(lambda: process.poll() is not None)
        if process.returncode:
            last = (log_file.read_text(encoding="utf-8", errors="replace").splitlines() or ["it printed nothing"])[-1]
            raise UserError("doctor.run", f"a small run ended with exit code {process.returncode}", last)


def _kill(process: "subprocess.Popen[str]", checkpoints: Path, step: int) -> bool:
    """Kill a run after a step is saved, as it may be saving the next; returns False if it had ended."""
    _wait(lambda: process.poll() is not None or _newest(checkpoints) >= step)
    time.sleep(random.uniform(0, 0.03))
    alive = process.poll() is None
    process.kill()
    log.info(f"killed after step {_newest(checkpoints)}" if alive else "ended before it could be killed")
    return alive


def _newest(checkpoints: Path) -> int:
    return max((CheckpointFolder(path).step for path in checkpoints_in(checkpoints)), default=0)


def _wait(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not seen():
        if time.monotonic() > deadline:
            raise UserError(
                "doctor.hang",
                f"a small run made no progress in {SECONDS} seconds",
                "check what else is running on this machine",
            )
        time.sleep(0.002)


def _compare(whole: Path, killed: Path) -> dict[str, Any]:
    losses = [_losses(run) for run in (whole, killed)]
    weights = [RunFolder(run).model.read_bytes() for run in (whole, killed)]
    if losses[0] != losses[1] or weights[0] != weights[1]:
        what = "losses" if losses[0] != losses[1] else "weights"
        raise UserError(
            "doctor.differs", f"a killed run ended with different {what}", "please report it with this output"
        )
    log.info(f"the same weights and losses over {len(losses[0])} steps, bit for bit")
    return {"self_test": "bit-identical", "steps": len(losses[0])}


def _losses(run: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in json_lines(RunFolder(run).metrics) if "loss" in row]
