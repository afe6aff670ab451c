"""Runs to compare: their curves and weights, killed until they complete, on one or two processes."""

import json
import random
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from support.processes import Programs, Running

Words = list[str | Path]

SLOW = """
import time
from mae_kit.training.module import TrainingModule
start = TrainingModule.on_train_batch_start
TrainingModule.on_train_batch_start = lambda *args: (time.sleep(0.06), start(*args))[1]
"""
"""Slow steps, so that a signal arrives during one."""

SLOW_SCORES = """
import time
import mae_kit.commands.pretrain, mae_kit.tasks.classification
from mae_kit.data.loading.loader import EvaluationBatches
mae_kit.commands.pretrain.KNN_BATCH = mae_kit.tasks.classification.BATCH = 2
get = EvaluationBatches.__getitem__
EvaluationBatches.__getitem__ = lambda *args: (time.sleep(0.3), get(*args))[1]
"""
"""Slow evaluation, two samples at a time."""


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def curve(run: Path) -> list[tuple[Any, ...]]:
    kept = ("step", "epoch", "loss", "lr", "gradient_norm", "skipped_steps")
    return [tuple(line[name] for name in kept) for line in lines(run) if "loss" in line]


def scored(run: Path, name: str) -> list[tuple[int, float]]:
    """Steps and values of a score."""
    return [(line["step"], line[name]) for line in lines(run) if name in line]


def audited(run: Path) -> list[int]:
    """Completed epochs, after checking that each used every sample exactly once, but for those that are counted."""
    ended = [line for line in lines(run) if "audit_epoch" in line]
    assert all((line["audit_keys"] == line["audit_expected"]) == (not line["audit_replaced"]) for line in ended), ended
    return [line["audit_epoch"] for line in ended]


def same(run: Path, other: Path, file: str = "model.safetensors") -> bool:
    """Assert bit-identical weights and curves, and each sample once per epoch."""
    assert audited(run) == audited(other) != []
    return curve(run) == curve(other) and (run / file).read_bytes() == (other / file).read_bytes()


def close(run: Path, other: Path, tolerance: float = 1e-5) -> float:
    """Assert equal curves up to rounding, and each sample once per epoch.

    Returns:
        How far the losses are apart at most, as a share of themselves.
    """
    assert audited(run) == audited(other) != []
    assert [line[0] for line in curve(run)] == [line[0] for line in curve(other)]
    losses = [[line[2] for line in curve(which)] for which in (run, other)]
    assert losses[0] == pytest.approx(losses[1], rel=tolerance)
    return max(abs(ours / theirs - 1) for ours, theirs in zip(*losses, strict=True))


def steps(run: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))


def resume_until_done(programs: Programs, run: Path, verb: str, first: Words, dice: random.Random) -> int:
    """Kill at random times, every other time while a checkpoint is written, until the run completes.

    Returns:
        How often it was killed.
    """
    words = [*first, "--run", run]
    for kills in range(60):
        running = programs.start(*words, patch=SLOW)
        running.wait_until(lambda running=running: "effective batch" in running.printed())
        if kills % 2:
            running.wait_until(lambda: any((run / "checkpoints").glob(".making-*")))
            time.sleep(dice.uniform(0, 0.01))
        else:
            time.sleep(dice.uniform(0, 1.1**kills))  # a busy machine gets through, too
        running.send(signal.SIGKILL)
        ended = running.wait()
        if ended.code == 0:
            return kills
        assert ended.code == -signal.SIGKILL, ended.err
        words = [verb, "--resume", run]
    raise AssertionError("it never got through")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def group(
    programs: Programs, world: int, *words: str | Path, patch: str = "", others: dict[int, list[str]] | None = None
) -> list[Running]:
    """Start ranks on this machine in the environments that torchrun sets; `others` has words for some alone."""
    common = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    common |= {"TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": 0}
    more = others or {}
    return [
        programs.start(*words, *more.get(rank, []), patch=patch, RANK=rank, LOCAL_RANK=rank, **common)
        for rank in range(world)
    ]
