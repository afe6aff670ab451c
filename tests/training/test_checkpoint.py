"""Checkpoints: whole or not there, whatever happens while they are written, and told apart from damaged ones."""
# Also tests training/checkpoint_callback.py.

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from support.errors import raises
from support.gates import Measured
from support.processes import Programs

from mae_kit.training.checkpoint import FORMAT, DurableCheckpointIO, load_latest
from mae_kit.training.checkpoint_callback import Checkpoints

SAVE = """
import itertools, torch
from pathlib import Path
from mae_kit.training.checkpoint import FORMAT, DurableCheckpointIO, load_latest
folder, io = Path({folder!r}), DurableCheckpointIO()
before = load_latest(folder)
for step in itertools.count(before["global_step"] + 1 if before else 1):
    state = {{"global_step": step, "model": torch.full((100_000,), float(step))}}
    io.save_checkpoint(state, folder / f"step-{{step:08d}}")
    for old in sorted(folder.glob("step-*"))[:-2]:
        io.remove_checkpoint(old)
"""


def state(step: int) -> dict[str, Any]:
    return {"global_step": step, "model": {"weight": torch.full((3,), float(step))}, "optimizer": {"lr": [0.1, 1e-300]}}


def save(folder: Path, *steps: int) -> None:
    for step in steps:
        DurableCheckpointIO().save_checkpoint(state(step), folder / f"step-{step:08d}")


def test_there_and_back(tmp_path: Path):
    save(tmp_path, 3, 12)
    latest = load_latest(tmp_path)
    assert latest and latest["global_step"] == 12 and torch.equal(latest["model"]["weight"], torch.full((3,), 12.0))
    assert latest["optimizer"] == state(12)["optimizer"]
    before = load_latest(tmp_path, before=12)
    assert before and before["global_step"] == 3
    assert load_latest(tmp_path / "none") is None and load_latest(tmp_path, before=3) is None


def test_folders_of_the_user_are_neither_read_nor_removed(tmp_path: Path):
    save(tmp_path, 8)
    for name in ("step-keep", "step-00000008-before", "step-9"):
        shutil.copytree(tmp_path / "step-00000008", tmp_path / name)
    save(tmp_path, 12, 16)
    latest, saving = load_latest(tmp_path), Checkpoints(tmp_path, 4)
    assert latest and latest["global_step"] == 16
    trainer = Mock(spec=Trainer, global_step=20, callbacks=[], max_steps=40, is_global_zero=True)
    trainer.strategy.checkpoint_io = DurableCheckpointIO()
    trainer.save_checkpoint = lambda path: trainer.strategy.checkpoint_io.save_checkpoint(state(20), path)
    saving.save(trainer)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-00000008-before", "step-00000016", "step-00000020", "step-9", "step-keep"]


def test_steps_are_compared_as_numbers(tmp_path: Path):
    save(tmp_path, 9, 99_999_999, 10)
    latest = load_latest(tmp_path)
    assert latest and latest["global_step"] == 99_999_999


def flip(folder: Path) -> None:
    data = bytearray((folder / "state.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "state.pt").write_bytes(data)


def truncate(folder: Path) -> None:
    os.truncate(folder / "state.pt", 100)


def empty_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("")


def other_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("[1]")


def no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def no_state(folder: Path) -> None:
    (folder / "state.pt").unlink()


def other_state(folder: Path) -> None:
    torch.save([1], folder / "state.pt")
    manifest = {"sha256": hashlib.sha256((folder / "state.pt").read_bytes()).hexdigest(), "step": 10, "format": FORMAT}
    (folder / "manifest.json").write_text(json.dumps(manifest))


DAMAGES = [flip, truncate, empty_manifest, other_manifest, no_manifest, no_state, other_state]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.gate("R5")
def test_a_damaged_one_is_named_in_one_line_and_passed_over(
    tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture
):
    save(tmp_path, 5, 10)
    damage(tmp_path / "step-00000010")
    latest = load_latest(tmp_path)
    assert latest and latest["global_step"] == 5
    (line,) = caplog.messages
    assert line.startswith("checkpoint step-00000010") and line.endswith("; trying the one before")


def test_one_of_another_version_is_refused(tmp_path: Path):
    save(tmp_path, 5, 10)
    manifest = tmp_path / "step-00000010" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": FORMAT + 1}))
    with raises("checkpoint.format"):
        load_latest(tmp_path)


@pytest.mark.gate("R5")
def test_when_all_are_damaged_it_says_so(tmp_path: Path):
    save(tmp_path, 5, 10)
    flip(tmp_path / "step-00000010")
    truncate(tmp_path / "step-00000005")
    with raises("checkpoint.damaged"):
        load_latest(tmp_path)


class Villain:
    def __init__(self, function: Any):
        self.function = function

    def __reduce__(self):
        return self.function, ("pwned",)


@pytest.mark.parametrize(("function", "name"), [(os.mkdir, "posix.mkdir"), (Path, f"{Path.__module__}.Path")])
@pytest.mark.gate("R12")
def test_a_pickle_that_wants_more_than_tensors_is_refused(
    function: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.chdir(tmp_path)
    DurableCheckpointIO().save_checkpoint({"global_step": 1, "model": Villain(function)}, tmp_path / "step-00000001")
    with raises("checkpoint.damaged"):
        load_latest(tmp_path)
    assert name in caplog.text
    assert not (tmp_path / "pwned").exists()


@pytest.mark.gate("R6")
def test_a_full_disk_leaves_the_old_ones_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path, 5)
    broken = iter([None, OSError(errno.ENOSPC, "No space left on device")])

    def fsync(descriptor: int) -> None:
        if error := next(broken):
            raise error

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


def test_the_same_step_again_replaces_it(tmp_path: Path):
    save(tmp_path, 5)
    flip(tmp_path / "step-00000005")
    save(tmp_path, 5)
    latest = load_latest(tmp_path)
    assert latest and latest["global_step"] == 5


def test_the_manifest_says_what_is_in_it(tmp_path: Path):
    save(tmp_path, 7)
    manifest = json.loads((tmp_path / "step-00000007" / "manifest.json").read_text())
    assert manifest["step"] == 7
    state_file = (tmp_path / "step-00000007" / "state.pt").read_bytes()
    assert manifest["sha256"] == hashlib.sha256(state_file).hexdigest()


@pytest.mark.long
@pytest.mark.gate("R4")
def test_killed_while_saving_there_is_always_a_whole_one(
    programs: Programs, tmp_path: Path, campaign: bool, measured: Measured
):
    """Saving without pause, killed at random; TMPDIR is no matter, since nothing goes through it."""
    dice, steps, kills = random.Random(0), [0], 200 if campaign else 20
    for _ in range(kills):
        running = programs.start(patch=SAVE.format(folder=str(tmp_path)), TMPDIR="/dev/shm")
        first = f"step-{steps[-1] + 1:08d}"
        running.wait_until(lambda first=first: (tmp_path / first).exists())
        time.sleep(dice.uniform(0, 0.1))
        running.send(signal.SIGKILL)
        assert running.wait().code == -signal.SIGKILL, running.wait().err
        latest = load_latest(tmp_path)
        assert latest and latest["model"].unique().tolist() == [float(latest["global_step"])]
        newest = max(int(path.name[5:]) for path in tmp_path.glob("step-*"))
        assert steps[-1] < latest["global_step"] == newest, "and the newest one there is whole"
        steps.append(latest["global_step"])
    measured(f"the newest loads, {len(steps) - 1} of {kills}")


def test_ranks_that_have_read_different_checkpoints_do_not_start(tmp_path: Path):
    trainer, module = Mock(spec=Trainer, global_step=5), Mock(spec=LightningModule)
    trainer.strategy.broadcast.return_value = 10  # the first one's
    with raises("run.ranks_differ"):
        Checkpoints(tmp_path, 5).on_train_start(trainer, module)
