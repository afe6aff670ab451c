"""The run folder: made late, never half, cleared of what a killed process left."""
# Also tests files/run_folder.py.

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import yaml
from support.errors import raises

from mae_kit.files.durable import append_lines
from mae_kit.training.checkpoint import DurableCheckpointIO, checkpoint_path
from mae_kit.training.config import Intervals, Machine, Optimization, Plan
from mae_kit.training.lock import LOCK
from mae_kit.training.run import Run


@dataclass(frozen=True)
class Part:
    size: tuple[int, int]
    where: Path


ARGUMENTS = {"part": Part((1, 2), Path("a/b")), "run": Path("runs/a"), "seed": 3, "nothing": None, "resume": True}


def line(step: int) -> str:
    return json.dumps({"step": step, "loss": 1 / step, "other": None}) + "\n"


def test_nothing_is_made_before_the_start(tmp_path: Path):
    run = Run(tmp_path / "deep" / "run")
    assert not (tmp_path / "deep").exists()
    run.start(ARGUMENTS, step=0)
    assert sorted(path.name for path in run.path.iterdir()) == [LOCK, "checkpoints", "config.yaml"]
    assert yaml.safe_load((run.path / "config.yaml").read_text()) == {
        "part": {"size": [1, 2], "where": "a/b"},
        "run": "runs/a",
        "seed": 3,
        "nothing": None,
    }


def test_a_run_is_not_overwritten_and_none_is_not_resumed(tmp_path: Path):
    with raises("run.missing"):
        Run(tmp_path, resume=True)
    Run(tmp_path).start(ARGUMENTS, 0)
    with raises("run.exists"):
        Run(tmp_path)
    Run(tmp_path, resume=True)


def test_a_run_that_another_process_has_begun_and_left_meanwhile_is_not_taken_over(tmp_path: Path):
    late = Run(tmp_path / "run")
    with Run(tmp_path / "run") as first:
        first.start(ARGUMENTS, 0)
        append_lines(first.metrics, [line(5).strip()])
    with raises("run.exists"), late:
        late.start(ARGUMENTS | {"seed": 4}, 0)
    assert first.last_metrics()["step"] == 5 and yaml.safe_load((first.path / "config.yaml").read_text())["seed"] == 3


def test_other_ranks_find_what_the_first_has_just_made(tmp_path: Path):
    first, second = Run(tmp_path / "run"), Run(tmp_path / "run", rank=1)
    second.start(ARGUMENTS, 0)
    assert not (tmp_path / "run").exists()
    first.start(ARGUMENTS, 0)
    Run(tmp_path / "run", rank=1)


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with raises("run.start"):
        Run(tmp_path / "file" / "run").start(ARGUMENTS, 0)


def test_a_config_that_cannot_be_written_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mae_kit.training.run.replace_text", full)
    with raises("run.start"):
        Run(tmp_path / "run").start(ARGUMENTS, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_drops_what_it_will_write_again(tmp_path: Path):
    run = Run(tmp_path)
    run.start(ARGUMENTS, 0)
    append_lines(run.metrics, [line(step).strip() for step in (3, 6, 9)])
    with open(run.metrics, "a") as file:
        file.write(line(12)[:-9])
    with open(run.metrics, "ab") as file:
        file.write(b'{"step": null}\n{"step": "\xff"}\n[3]\n\xff\n')
    (run.checkpoints / ".making-step-00000010-123").mkdir()
    (run.path / ".encoder.json.1f2e3d4c.making").touch()
    (run.path / "reconstructions").mkdir()
    (run.path / "reconstructions" / ".step-00000006.png.1f2e3d4c.making").touch()
    Run(tmp_path, resume=True).start(ARGUMENTS, 6)
    assert run.metrics.read_text() == line(3) + line(6)
    assert run.last_metrics() == {"step": 6, "loss": 1 / 6, "other": None}
    assert list(run.checkpoints.iterdir()) == [] and list(run.path.rglob(".*")) == [run.path / LOCK]


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Intervals(log_every_n_steps=0), "intervals.log_every_n_steps"),
        (lambda: Intervals(checkpoint_every_n_steps=-1), "intervals.checkpoint_every_n_steps"),
        (lambda: Machine(accumulate_grad_batches=0), "machine.accumulate_grad_batches"),
        (lambda: Plan(10, 0, 1.0, 0), "data.batch_size"),
        (lambda: Plan(10, 2, 0.0, 0), "optimization.epochs"),
        (lambda: Machine(cache_size=0), "machine.cache_size"),
    ],
)
def test_what_counts_must_be_positive(make, key: str):
    with raises(key):
        make()


def test_the_length_of_a_run():
    plan = Plan(1000, 64, 2.5, 0)
    assert plan.steps == 39 and plan.epoch(39) == pytest.approx(2.496)
    assert Plan(10, 10, 0.001, 0).steps == 1


def test_one_learning_rate():
    assert Optimization(1, base_learning_rate=1.5e-4).peak(4096) == pytest.approx(2.4e-3)
    assert Optimization(1, learning_rate=1e-3).peak(4096) == 1e-3
    with raises("optimization.learning_rate.none"):
        Optimization(1).peak(256)
    with raises("optimization.learning_rate.both"):
        Optimization(1, base_learning_rate=1e-4, learning_rate=1e-3)


@pytest.mark.gate("R6")
def test_too_little_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=10**8))
    with raises("run.disk"):
        Run(tmp_path / "run").start(ARGUMENTS, 0, needed=3 * 10**8)
    assert list(tmp_path.iterdir()) == []
    run = Run(tmp_path / "run")
    run.start(ARGUMENTS, 0, needed=10**8)
    (run.checkpoints / "step-00000005").mkdir()
    (run.checkpoints / "step-00000005" / "state.pt").write_bytes(bytes(10**6))
    Run(tmp_path / "run", resume=True).start(ARGUMENTS, 5, needed=10**8 + 10**6)


PLAN = Plan(20, 4, 2.0, 0, "aaaa", {"a.tar": "1", "b.tar": "2", "c.tar": "3"})


def test_what_a_run_goes_on_with(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    before = asdict(PLAN)
    replace(PLAN, epochs=3.0).check_continues(before, tmp_path)
    with raises("resume.settings"):
        replace(PLAN, batch_size=8, seed=1).check_continues(before, tmp_path)
    with raises("data.mix_shards"):
        replace(PLAN, mix_shards=-1)
    with raises("resume.settings"):
        replace(PLAN, mix_shards=2).check_continues(before, tmp_path)
    other = replace(PLAN, samples=18, data="bbbb", shards={"a.tar": "1", "c.tar": "9", "d.tar": "4"})
    with raises("resume.data") as changed:
        other.check_continues(before, tmp_path)
    assert all(shard in changed.value.problem for shard in ("b.tar", "c.tar", "d.tar"))
    other.check_continues(before, tmp_path, allow_data_change=True)
    assert "the data has changed: 20 samples are now 18" in caplog.text
    assert PLAN.has_data_of(before) and not other.has_data_of(before)


def test_a_run_that_was_killed_after_its_last_step_does_its_end_again(tmp_path: Path):
    run = Run(tmp_path / "run")
    run.start(ARGUMENTS, 0)
    for step in (5, 10):
        DurableCheckpointIO().save_checkpoint({"global_step": step}, checkpoint_path(run.checkpoints, step))

    def left_off(steps: int, *files: Path) -> int:
        state = run.left_off(steps, *files)
        return state["global_step"] if state else 0

    assert (left_off(10), left_off(20)) == (5, 10)
    run.finish(10)
    assert (left_off(10), left_off(20)) == (10, 10) and run.is_complete(10)
    assert left_off(10, run.result) == 5 and not run.is_complete(10, run.result)
