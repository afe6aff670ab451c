"""Training as real processes: killed, interrupted, split, fed with damage; the run must not be able to tell."""
# Also tests training/signals.py.

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file
from support.gates import Measured
from support.photo_shards import write_shard
from support.processes import SECONDS, Ended, Programs
from support.runs import (
    SLOW,
    SLOW_SCORES,
    Words,
    audited,
    close,
    curve,
    free_port,
    group,
    lines,
    resume_until_done,
    same,
    scored,
    steps,
)

from mae_kit.training.metrics import clock, read_metrics

pytestmark = pytest.mark.long

NOT_ALLOWED = 77
LIMITS = {
    "descriptors": "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))\n",
    "shared memory": f"""
import ctypes, sys
CLONE_NEWNS, MS_PRIVATE_REC = 0x20000, 0x44000
libc = ctypes.CDLL(None)
if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_PRIVATE_REC, None):
    sys.exit({NOT_ALLOWED})
if libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=100k"):
    sys.exit({NOT_ALLOWED})
""",
}
POISON = """
from mae_kit.training.modules import PretrainModule
loss = PretrainModule.loss
def poisoned(self, batch):
    values = loss(self, batch)
    return {{**values, "loss": values["loss"] * (float("nan") if self.trainer.global_step in {steps} else 1)}}
PretrainModule.loss = poisoned
"""


@pytest.fixture
def words(photos: Path, recipes: Path) -> Words:
    """The command line that made the run `trained`, but for --run."""
    return ["pretrain", "--config", recipes / "pretrain.yaml", "--data.path", photos / "train-*.tar"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.gate("R1")
def test_killed_at_any_moment_it_resumes_bit_by_bit(
    programs: Programs, words: Words, trained: Path, tmp_path: Path, workers: int
):
    run = tmp_path / "run"
    kills = resume_until_done(
        programs, run, "pretrain", [*words, "--machine.num_workers", str(workers)], random.Random(workers)
    )
    assert kills >= 2
    assert same(run, trained)
    assert len(steps(run)) == 2 and not list((run / "checkpoints").glob(".*"))


@pytest.mark.gate("R1")
def test_killed_at_random_moments_it_cannot_be_told(
    programs: Programs, words: Words, trained: Path, tmp_path: Path, campaign: bool, measured: Measured
):
    """Each time a whole run: killed once, at a moment drawn uniformly from its length, and resumed."""
    slow: Any = {"patch": SLOW}
    started = time.monotonic()
    assert programs.run(*words, "--run", tmp_path / "whole", **slow).code == 0
    length, dice, trials, kept = time.monotonic() - started, random.Random(3), 30 if campaign else 3, 0
    for trial in range(trials):
        run = tmp_path / str(trial)
        running = programs.start(*words, "--run", run, **slow)
        time.sleep(dice.uniform(0, length))
        running.send(signal.SIGKILL)
        ended = running.wait()
        first = ["pretrain", "--resume", run] if (run / "config.yaml").exists() else [*words, "--run", run]
        assert ended.code in (0, -signal.SIGKILL) and programs.run(*first).code == 0
        kept += same(run, trained)
    measured(f"{kept} of {trials} bit-identical")
    assert kept == trials


@pytest.mark.gate("R2")
def test_other_numbers_of_workers_after_each_stop_show_every_sample_once(
    programs: Programs, words: Words, trained: Path, tmp_path: Path, measured: Measured
):
    """Gate R2: killed four times within the first two epochs, resumed with 0, 1, 2 and 4 workers."""
    run = tmp_path / "run"
    every_step = ["--intervals.checkpoint_every_n_steps", "1"]
    first = [*words, "--run", run, *every_step]
    for stop, workers in enumerate((0, 1, 2, 4), start=1):
        running = programs.start(*first, "--machine.num_workers", str(workers), patch=SLOW)
        running.wait_until(lambda stop=stop: bool(steps(run)) and steps(run)[-1] >= 2 * stop)
        running.send(signal.SIGKILL)
        assert running.wait().code == -signal.SIGKILL, running.wait().err
        first = ["pretrain", "--resume", run, *every_step]
    assert programs.run(*first).code == 0
    assert same(run, trained) and audited(run) == [0, 1, 2]
    measured(f"{stop} kills: each sample once in {len(audited(run))} of 3 epochs, bit-identical")


@pytest.mark.gate("R3")
def test_other_numbers_of_processes_after_each_stop_are_the_same_training(
    programs: Programs, words: Words, trained: Path, tmp_path: Path, measured: Measured
):
    """Gate R3: one process, two, four, and one again, the batch fixed."""
    run = tmp_path / "run"
    first = [*words, "--run", run]
    for stop, world in enumerate((1, 2, 4), start=1):
        ranks = group(programs, world, *first, patch=SLOW)
        ranks[0].wait_until(lambda stop=stop: len(curve(run)) >= stop if (run / "metrics.jsonl").exists() else False)
        ranks[-1].send(signal.SIGTERM)
        ended = [rank.wait() for rank in ranks]
        assert [end.code for end in ended] == [143] * world, ended
        first = ["pretrain", "--resume", run]
    assert programs.run(*first).code == 0
    measured(f"losses at most {close(run, trained, 1e-6):.1g} apart")
    assert audited(run) == [0, 1, 2]


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 143), ("SIGHUP", 143)])
@pytest.mark.gate("R8")
def test_a_signal_saves_that_step_and_resumes_bit_by_bit(
    programs: Programs,
    words: Words,
    trained: Path,
    tmp_path: Path,
    campaign: bool,
    measured: Measured,
    number: str,
    code: int,
):
    dice, trials, longest = random.Random(number), 5 if campaign else 1, 0.0
    for trial in range(trials):
        run = tmp_path / str(trial)
        running = programs.start(*words, "--run", run, "--machine.num_workers", "1", patch=SLOW)
        running.wait_until((run / "metrics.jsonl").exists)
        time.sleep(dice.uniform(0, 0.4))
        running.send(signal.Signals[number])
        sent = time.monotonic()
        ended = running.wait()
        longest = max(longest, time.monotonic() - sent)
        assert ended.code == code, ended.err
        stopped = steps(run)[-1]
        assert 3 <= stopped < 18
        assert f"stopped by a signal after step {stopped}; continue with --resume {run}" in ended.out
        assert not (run / "model.safetensors").exists()
        clocks = {name: clock(read_metrics(run), name) for name in ("seconds", "core_seconds")}
        last = read_metrics(run)[-1]
        assert (last["step"], last["seconds"]) == (stopped, clocks["seconds"]) and last["core_seconds"] > 0
        assert programs.run("pretrain", "--resume", run).code == 0
        assert same(run, trained)
        later = [row for row in read_metrics(run) if row["step"] > stopped and "loss" in row]
        assert all(row[name] > before for row in later for name, before in clocks.items()), "the clocks go on"
    measured(f"{number}: {trials} of {trials} saved and out within {longest:.1f} s")


@pytest.mark.gate("R8")
def test_two_signals_stop_at_once(programs: Programs, words: Words, tmp_path: Path):
    run = tmp_path / "run"
    running = programs.start(*words, "--run", run, patch=SLOW.replace("0.06", "3"))
    running.wait_until((run / "config.yaml").exists)
    time.sleep(2)
    running.send(signal.SIGINT)
    time.sleep(0.3)
    running.send(signal.SIGINT)
    ended = running.wait()
    assert ended.code == 130 and "Traceback" not in ended.err


def test_two_micro_batches_are_the_same_training(programs: Programs, words: Words, trained: Path, tmp_path: Path):
    assert programs.run(*words, "--run", tmp_path / "run", "--machine.accumulate_grad_batches", "2").code == 0
    close(tmp_path / "run", trained)


def torchrun(*words: str | Path) -> Words:
    """Words of torch.distributed.run that start `mae-kit WORDS` twice."""
    agent = ["--nproc-per-node", "2", "--max-restarts", "3", "--monitor-interval", "0.2"]
    return [*agent, "--master-port", str(free_port()), "-m", "--", "mae_kit", *words]


def test_torchrun_with_two_processes_is_the_same_training(
    programs: Programs, words: Words, trained: Path, tmp_path: Path
):
    run = tmp_path / "run"
    ended = programs.run(*torchrun(*words, "--run", run), module="torch.distributed.run")
    assert ended.code == 0, ended
    assert "effective batch 16 (2 devices x 8 images x 1 accumulated)" in ended.out
    assert ended.out.count("effective batch") == 1, "one process speaks for all"
    assert "deprecated" not in ended.err
    close(run, trained)


def test_processor_time_is_that_of_all_processes(programs: Programs, words: Words, tmp_path: Path):
    clock = "import itertools\nfrom mae_kit.training.record import Record\nticks = itertools.count(0, 5)\n"
    patch = clock + "Record._cpu_seconds = lambda self: float(next(ticks))"
    for rank in group(programs, 2, *words, "--run", tmp_path / "run", patch=patch):
        assert rank.wait().code == 0
    told = [line["core_seconds"] for line in lines(tmp_path / "run") if "core_seconds" in line]
    assert told == [10.0 * (i + 1) for i in range(7)], "after each step, and at the end"


@pytest.mark.gate("R8")
def test_a_signal_to_one_rank_stops_both_and_one_process_goes_on(
    programs: Programs, words: Words, trained: Path, tmp_path: Path
):
    run = tmp_path / "run"
    ranks = group(programs, 2, *words, "--run", run, patch=SLOW)
    ranks[0].wait_until((run / "metrics.jsonl").exists)
    time.sleep(0.2)
    ranks[1].send(signal.SIGTERM)
    ended: list[Ended] = [rank.wait() for rank in ranks]
    assert [end.code for end in ended] == [143, 143], ended
    assert 3 <= steps(run)[-1] < 18
    assert programs.run("pretrain", "--resume", run).code == 0
    close(run, trained)


@pytest.mark.parametrize(("world", "scored_step"), [(1, 6), (2, 6), (2, 0)])
@pytest.mark.gate("R8")
def test_a_signal_ends_a_score_and_the_resumed_run_begins_with_it(
    programs: Programs, words: Words, photos: Path, tmp_path: Path, world: int, scored_step: int
):
    """To the last rank, which has nothing to score: only the first one has."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    words = [*words, "--intervals.eval_every_n_steps", "6", "--data.knn_shards", photos / "val-*.tar"]
    assert [rank.wait().code for rank in group(programs, world, *words, "--run", whole)] == [0] * world
    ranks = group(programs, world, *words, "--run", run, patch=SLOW_SCORES)
    begun = run / (f"reconstructions/step-{scored_step:08d}.png" if scored_step else "tensorboard")
    ranks[0].wait_until(begun.exists)
    time.sleep(1)
    ranks[-1].send(signal.SIGTERM)
    ended = [rank.wait() for rank in ranks]
    assert [end.code for end in ended] == [143] * world, ended
    assert [step for step, _ in scored(run, "knn_top1")] == list(range(0, scored_step, 6))
    ended = [rank.wait() for rank in group(programs, world, "pretrain", "--resume", run)]
    assert [end.code for end in ended] == [0] * world, ended
    assert same(run, whole) and scored(run, "knn_top1") == scored(whole, "knn_top1")
    assert [step for step, _ in scored(run, "knn_top1")] == [0, 6, 12, 18]


@pytest.mark.gate("R14")
def test_one_bad_batch_is_skipped_and_counted(programs: Programs, words: Words, tmp_path: Path, measured: Measured):
    run = tmp_path / "run"
    ended = programs.run(*words, "--run", run, patch=POISON.format(steps={7}))
    assert ended.code == 0, ended.err
    assert "step 7: the loss or its gradient is not finite; the step is skipped" in ended.out
    assert read_metrics(run)[-1]["skipped_steps"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in load_file(run / "model.safetensors").values())
    (hit,) = (line for line in lines(run) if line.get("loss", 0) is None)
    assert hit["step"] == 9
    measured(f"one: {read_metrics(run)[-1]['skipped_steps']} of 18 steps skipped")


@pytest.mark.gate("R14")
def test_three_bad_batches_in_a_row_go_back_to_the_last_checkpoint(
    programs: Programs, words: Words, tmp_path: Path, measured: Measured
):
    run = tmp_path / "run"
    ended = programs.run(*words, "--run", run, patch=POISON.format(steps={6, 7, 8}))
    assert ended.code == 0, ended.err
    assert "step 8: back to the weights of step 5" in ended.out
    assert read_metrics(run)[-1]["skipped_steps"] == 3 and read_metrics(run)[-1]["step"] == 18
    assert read_metrics(run)[-1]["loss"] < lines(run)[0]["loss"]
    measured(f"three: back to step 5 of 8, loss {lines(run)[0]['loss']:.2f} to {read_metrics(run)[-1]['loss']:.2f}")


def test_what_steps_are_skipped_for_is_not_saved_over_what_was_sound(programs: Programs, words: Words, tmp_path: Path):
    """A checkpoint is due amid the three: it could be of the weights that did the damage."""
    ended = programs.run(*words, "--run", tmp_path / "run", patch=POISON.format(steps={8, 9, 10}))
    assert ended.code == 0 and "step 10: back to the weights of step 5" in ended.out, ended.err


@pytest.mark.gate("R14")
def test_a_loss_that_never_is_finite_ends_the_run_with_one_line(programs: Programs, words: Words, tmp_path: Path):
    ended = programs.run(*words, "--run", tmp_path / "run", patch=POISON.format(steps=set(range(6, 18))))
    assert (ended.code, ended.key) == (2, "training.not_finite") and "Traceback" not in ended.err


@pytest.mark.gate("R5")
def test_a_damaged_checkpoint_is_passed_over(programs: Programs, trained: Path, tmp_path: Path, measured: Measured):
    """Other damages: tests/training/test_checkpoint.py."""
    run = shutil.copytree(trained, tmp_path / "run")
    state = run / "checkpoints" / "step-00000018" / "state.pt"
    data = bytearray(state.read_bytes())
    data[len(data) // 3] ^= 4
    state.write_bytes(data)
    ended = programs.run("pretrain", "--resume", run)
    assert ended.code == 0, ended.err
    assert ended.out.count("checkpoint step-00000018") == 1 and "resuming after step 15" in ended.out
    assert same(run, trained) and steps(run) == [15, 18]
    measured(f"{steps(run)[-1] - steps(run)[0]} steps done again, bit-identical")
    assert "is complete" in programs.run("pretrain", "--resume", run).out, "the new step-18 is whole"


def test_a_complete_run_is_left_as_it_is(programs: Programs, trained: Path, tmp_path: Path):
    run = shutil.copytree(trained, tmp_path / "run")
    ended = programs.run("pretrain", "--resume", run, "--json")
    assert ended.code == 0 and "is complete: it has trained for 18 of 18 steps" in ended.err
    result = json.loads(ended.out)
    assert result["steps"] == result["step"] == 18 and result["loss"] == read_metrics(trained)[-1]["loss"]
    assert (run / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()
    assert same(run, trained)


def test_killed_between_the_last_step_and_the_results_it_writes_them(programs: Programs, trained: Path, tmp_path: Path):
    run = shutil.copytree(trained, tmp_path / "run")
    for name in ("model.safetensors", "encoder.safetensors", "encoder.json"):
        (run / name).unlink()
    assert programs.run("pretrain", "--resume", run).code == 0
    assert same(run, trained) and same(run, trained, "encoder.safetensors")


def test_more_epochs_continue_a_run(programs: Programs, trained: Path, tmp_path: Path):
    run = shutil.copytree(trained, tmp_path / "run")
    ended = programs.run("pretrain", "--resume", run, "--optimization.epochs", "4")
    assert ended.code == 0, ended.err
    assert curve(run)[:6] == curve(trained) and curve(run)[-1][0] == 24


def test_a_run_does_not_resume_as_another(programs: Programs, trained: Path, tmp_path: Path):
    """Another batch or seed: tests/training/test_run.py."""
    run = shutil.copytree(trained, tmp_path / "run")
    refused(programs.run("pretrain", "--resume", run, "--objective.init_args.decoder_dim", "64"), "run.other_model")
    assert (run / "config.yaml").read_text() == (trained / "config.yaml").read_text()


def test_a_run_belongs_to_one_process_at_a_time(programs: Programs, words: Words, trained: Path, tmp_path: Path):
    """The second would take away checkpoints and lines that the first has written."""
    run = tmp_path / "run"
    first = programs.start(*words, "--run", run, patch=SLOW)
    while first.alive() and not (run / "metrics.jsonl").exists():
        time.sleep(0.02)
    second = programs.run("pretrain", "--resume", run)
    assert first.alive()
    refused(second, "run.in_use")
    assert first.wait().code == 0 and same(run, trained)


def refused(ended: Ended, *keys: str) -> None:
    assert ended.code == 2 and ended.key in keys, ended
    (line,) = ended.err.splitlines()
    assert line.startswith("mae-kit: error: ")


@pytest.mark.gate("R16")
def test_a_run_does_not_resume_on_other_data(programs: Programs, words: Words, tmp_path: Path, measured: Measured):
    for part in range(2):
        write_shard(tmp_path / f"train-{part}.tar", range(part * 24, part * 24 + 24))
    words = [*words[:-1], tmp_path / "train-*.tar", "--run", tmp_path / "run"]
    assert programs.run(*words, "--optimization.epochs", "1", "--optimization.warmup_epochs", "0").code == 0
    write_shard(tmp_path / "train-1.tar", range(25, 49))
    longer = ["pretrain", "--resume", tmp_path / "run", "--optimization.epochs", "2"]
    seen = [programs.run(*longer)]
    refused(seen[-1], "resume.data")
    write_shard(tmp_path / "train-2.tar", range(49, 60))
    seen.append(programs.run(*longer))
    refused(seen[-1], "resume.data")
    ended = programs.run(*longer, "--allow-data-change")
    assert ended.code == 0 and "the data has changed: 48 samples are now 59" in ended.out
    assert read_metrics(tmp_path / "run")[-1]["step"] == 7
    refused(programs.run(*longer[:-1], "4", "--seed", "1"), "resume.settings")
    (tmp_path / "train-2.tar").unlink()
    seen.append(programs.run(*longer[:-1], "4"))
    refused(seen[-1], "resume.data")
    measured(f"{sum(ended.code == 2 for ended in seen)} of {len(seen)} changes refused with their difference")


@pytest.mark.gate("R16")
def test_the_same_shards_in_another_folder_are_the_same_data(programs: Programs, words: Words, tmp_path: Path):
    """Gate R16: another machine mounts them elsewhere."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        write_shard(tmp_path / name / "train-0.tar", range(48))
    here = [*words[:-1], tmp_path / "here" / "train-*.tar", "--run", tmp_path / "run", "--optimization.epochs", "1"]
    assert programs.run(*here, "--optimization.warmup_epochs", "0").code == 0
    shutil.rmtree(tmp_path / "here")
    moved = shutil.move(tmp_path / "run", tmp_path / "moved")
    there = ["--data.path", tmp_path / "there" / "train-*.tar", "--optimization.epochs", "2"]
    assert programs.run("pretrain", "--resume", moved, *there).code == 0
    assert audited(Path(moved)) == [0, 1]


@pytest.mark.gate("R15")
def test_a_killed_worker_is_replaced(
    programs: Programs, words: Words, trained: Path, tmp_path: Path, measured: Measured
):
    """Gate R15."""
    run = tmp_path / "run"
    running = programs.start(*words, "--run", run, "--machine.num_workers", "2", patch=SLOW)
    running.wait_until((run / "metrics.jsonl").exists)
    worker = next(child for child in psutil.Process(running.pid).children() if child.is_running())
    worker.kill()
    ended = running.wait()
    assert ended.code == 0 and "exited unexpectedly; the others take over" in ended.out, ended
    assert same(run, trained)
    measured(f"one: {curve(run)[-1][0]} of 18 steps, bit-identical")


@pytest.mark.gate("R15")
def test_workers_that_never_live_end_the_run_with_one_line(
    programs: Programs, words: Words, tmp_path: Path, measured: Measured
):
    deadly = "import os, signal, mae_kit.data.loading.loader as l\n"
    deadly += "l._ignore_signals = lambda worker: os.kill(os.getpid(), signal.SIGKILL)"
    started = time.monotonic()
    ended = programs.run(*words, "--run", tmp_path / "run", "--machine.num_workers", "1", patch=deadly)
    measured(f"all: ended after {time.monotonic() - started:.1f} s")
    refused(ended, "loader.dead")


@pytest.mark.gate("R11")
def test_damaged_images_are_replaced_and_listed(programs: Programs, recipes: Path, tmp_path: Path, measured: Measured):
    write_shard(tmp_path / "a.tar", range(48), damaged=(4, 40))
    words = ["pretrain", "--config", recipes / "pretrain.yaml", "--data.path", tmp_path / "a.tar", "--run"]
    assert programs.run(*words, tmp_path / "one").code == 0
    found = [json.loads(line) for line in (tmp_path / "one" / "quarantine.jsonl").read_text().splitlines()]
    assert [line["key"] for line in found].count("0004") >= 3 and {line["key"] for line in found} == {"0004", "0040"}
    assert read_metrics(tmp_path / "one")[-1]["bad_samples"] == len(found)
    replaced = [line["audit_replaced"] for line in lines(tmp_path / "one") if "audit_epoch" in line]
    assert replaced == [2, 2, 2], "of 48, in each epoch"
    dice = random.Random(1)
    two = [*words[:-1], "--machine.num_workers", "2"]
    kills = resume_until_done(programs, tmp_path / "two", "pretrain", two, dice)
    assert same(tmp_path / "one", tmp_path / "two")
    measured(f"{len(found)} replaced, {kills} kills, bit-identical")


def test_mostly_damaged_images_end_the_run(programs: Programs, recipes: Path, tmp_path: Path):
    write_shard(tmp_path / "a.tar", range(48), damaged=tuple(range(0, 48, 3)))
    words = ["pretrain", "--config", recipes / "pretrain.yaml", "--data.path", tmp_path / "a.tar"]
    ended = programs.run(*words, "--run", tmp_path / "run", "--machine.num_workers", "1")
    assert (ended.code, ended.key) == (2, "data.bad_samples") and "Traceback" not in ended.err


@pytest.mark.gate("R24")
def test_shards_that_vanish_end_the_run_until_they_are_back(
    programs: Programs, words: Words, photos: Path, trained: Path, tmp_path: Path
):
    shards = shutil.copytree(photos, tmp_path / "shards")
    words = [*words[:-1], shards / "train-*.tar", "--run", tmp_path / "run", "--machine.num_workers", "1"]
    short = "from mae_kit.data.remote import filesystem\nfilesystem.PAUSES = [0.01, 0.01]\n"
    running = programs.start(*words, patch=short + SLOW)
    running.wait_until(lambda: bool(steps(tmp_path / "run")))
    data = (shards / "train-1.tar").read_bytes()
    os.truncate(shards / "train-1.tar", 0)
    ended = running.wait()
    refused(ended, "data.read", "loader.failed")
    (shards / "train-1.tar").write_bytes(data)
    assert programs.run("pretrain", "--resume", tmp_path / "run").code == 0
    assert same(tmp_path / "run", trained)


LIMIT = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes}, {bytes}))
"""


@pytest.mark.gate("R6")
def test_a_full_disk_costs_checkpoints_not_the_run(
    programs: Programs, words: Words, trained: Path, tmp_path: Path, measured: Measured
):
    """No file may grow beyond half a checkpoint: the run goes on, says so each time, and fails at its end alone."""
    size = (trained / "checkpoints" / "step-00000018" / "state.pt").stat().st_size
    run = tmp_path / "run"
    ended = programs.run(*words, "--run", run, patch=LIMIT.format(bytes=size // 2))
    assert (ended.code, ended.key) == (2, "run.checkpoint_not_written"), ended
    missing = ended.out.count(" was not written (File too large): free some space; the one before is kept")
    assert missing == 4
    assert curve(run) == curve(trained) and list((run / "checkpoints").iterdir()) == []
    assert programs.run("pretrain", "--resume", run).code == 0
    assert same(run, trained)
    measured(f"{missing} saves failed, {curve(run)[-1][0]} of 18 steps done, bit-identical")


@pytest.mark.gate("R6")
def test_a_disk_that_takes_nothing_more_ends_a_run_at_its_end_alone(
    programs: Programs, words: Words, trained: Path, tmp_path: Path
):
    """Not even a line of the metrics, a plot, an event of TensorBoard."""
    run, room = tmp_path / "run", (trained / "config.yaml").stat().st_size + 200
    ended = programs.run(*words, "--run", run, patch=LIMIT.format(bytes=room))
    assert (ended.code, ended.key) == (2, "run.not_written"), ended
    assert ended.out.count("free some space; the run continues") == 1 and "step 18/18" in ended.out
    assert programs.run("pretrain", "--resume", run).code == 0
    assert same(run, trained)


CLOSED = """
import os, sys
reading, writing = os.pipe()
os.close(reading)
os.dup2(writing, 1)
sys.stdout = os.fdopen(1, "w", closefd=False)
"""


@pytest.mark.parametrize(
    ("out", "code"), [(CLOSED, 0), ("import os\nos.dup2(os.open('/dev/full', os.O_WRONLY), 1)", 1)]
)
@pytest.mark.gate("R6")
@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_who_reads_the_messages_does_not_end_the_run(
    programs: Programs, words: Words, trained: Path, tmp_path: Path, out: str, code: int
):
    """`mae-kit pretrain ... | head -1`, and a full disk behind `> log`."""
    ended = programs.run(*words, "--run", tmp_path / "run", patch=out)
    assert ended.code == code and "Traceback" not in ended.err, ended
    assert same(tmp_path / "run", trained)


@pytest.mark.gate("R21")
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP")
def test_a_signal_ends_a_run_whose_worker_is_stuck(programs: Programs, words: Words, trained: Path, tmp_path: Path):
    run = tmp_path / "run"
    seldom = ["--intervals.checkpoint_every_n_steps", "1000"]
    running = programs.start(*words, *seldom, "--run", run, "--machine.num_workers", "1", patch=SLOW)
    running.wait_until((run / "metrics.jsonl").exists)
    (worker,) = psutil.Process(running.pid).children()
    worker.suspend()
    time.sleep(1)
    running.send(signal.SIGTERM)
    ended = running.wait()
    assert ended.code == 143 and f"stopped by a signal; continue with --resume {run}" in ended.out, ended
    gone(worker)
    assert 0 < steps(run)[-1] < 18, "the last whole step"
    assert programs.run("pretrain", "--resume", run).code == 0
    assert same(run, trained)


def gone(process: psutil.Process) -> None:
    """Wait for a process that has been killed; where nobody asks how it ended it stays as a zombie."""
    deadline = time.monotonic() + SECONDS
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.gate("R22")
def test_ranks_that_differ_do_not_start(programs: Programs, words: Words, tmp_path: Path):
    ranks = group(programs, 2, *words, "--run", tmp_path / "run", others={1: ["--optimization.learning_rate", "2e-3"]})
    for ended in [rank.wait() for rank in ranks]:
        refused(ended, "optimization.learning_rate")
    assert not (tmp_path / "run").exists()


@pytest.mark.gate("R21")
def test_a_lost_peer_is_one_line(programs: Programs, words: Words, tmp_path: Path):
    run = tmp_path / "run"
    ranks = group(programs, 2, *words, "--run", run, patch=SLOW)
    ranks[0].wait_until((run / "metrics.jsonl").exists)
    ranks[1].send(signal.SIGKILL)
    refused(ranks[0].wait(), "run.peer_lost")


@pytest.mark.gate("R21")
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP")
@pytest.mark.parametrize("asked", [False, True], ids=["left alone", "SIGTERM"])
def test_a_stuck_peer_ends_a_run_which_resumes(
    programs: Programs, words: Words, trained: Path, tmp_path: Path, asked: bool
):
    """By the time-out of the collectives, or of a signal."""
    run = tmp_path / "run"
    short = "import datetime, mae_kit.training.fit, mae_kit.training.signals\n"
    short += "mae_kit.training.signals.BUSY = 3.0\n" if asked else ""
    short += f"mae_kit.training.fit.PATIENCE = datetime.timedelta(seconds={600 if asked else 20})\n"
    ranks = group(programs, 2, *words, "--run", run, patch=short + SLOW)
    ranks[0].wait_until(lambda: bool(steps(run)))
    ranks[1].send(signal.SIGSTOP)
    if asked:
        ranks[0].send(signal.SIGTERM)
        ended = ranks[0].wait()
        assert ended.code == 143 and "the last checkpoint is kept" in ended.out, ended
    else:
        refused(ranks[0].wait(), "run.peer_lost")
    ranks[1].send(signal.SIGKILL)
    ranks[1].wait()
    assert programs.run("pretrain", "--resume", run).code == 0
    close(run, trained)


FAILING = """
import os
from mae_kit.errors import UserError
from mae_kit.training.modules import PretrainModule
loss = PretrainModule.loss
def failing(self, batch):
    if self.trainer.global_step == 5 and os.environ["RANK"] == "1":
        raise UserError("model", "this rank fails", "mend it")
    return loss(self, batch)
PretrainModule.loss = failing
"""


@pytest.mark.gate("R21")
def test_an_error_on_one_rank_does_not_leave_the_others_waiting(programs: Programs, words: Words, tmp_path: Path):
    ranks = group(programs, 2, *words, "--run", tmp_path / "run", patch=FAILING)
    refused(ranks[1].wait(), "model")
    refused(ranks[0].wait(), "run.peer_lost")


@pytest.mark.gate("R21")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_torchruns_agent_restarts_a_run_that_resumes(
    programs: Programs, words: Words, trained: Path, tmp_path: Path, number: signal.Signals
):
    """SIGKILL to a rank is answered by the agent, which starts all again; SIGTERM to the agent ends and saves all."""
    run = tmp_path / "run"
    launch = torchrun(*words, "--run", run, "--resume", "auto", "--optimization.epochs", "9")
    agent = programs.start(*launch, module="torch.distributed.run")
    agent.wait_until(lambda: bool(steps(run)))
    ranks = [child for child in psutil.Process(agent.pid).children() if "mae_kit" in child.cmdline()]
    if number == signal.SIGKILL:
        ranks[-1].kill()
    else:
        agent.send(number)
    ended = agent.wait()
    if number == signal.SIGTERM:
        assert ended.code and "stopped by a signal after step" in ended.out, ended
        ended = programs.run(*launch, module="torch.distributed.run")
    assert ended.code == 0 and "resuming after step" in ended.out, ended
    assert curve(run)[-1][0] == 54 and audited(run) == [*range(9)]


@pytest.mark.gate("R23")
@pytest.mark.parametrize("limit", LIMITS)
def test_few_descriptors_and_little_shared_memory_change_nothing(
    programs: Programs, words: Words, trained: Path, tmp_path: Path, limit: str
):
    ended = programs.run(*words, "--run", tmp_path / "run", "--machine.num_workers", "2", patch=LIMITS[limit])
    if ended.code == NOT_ALLOWED:
        pytest.skip("mounting a small /dev/shm needs the superuser")
    assert ended.code == 0, ended.err
    assert ("are copied instead" in ended.out) == (limit == "shared memory")
    assert same(tmp_path / "run", trained)


@pytest.mark.gate("R7")
@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that nobody can write to")
def test_a_folder_that_cannot_be_written_is_refused_before_training(
    programs: Programs, words: Words, measured: Measured
):
    started = time.monotonic()
    ended = programs.run(*words, "--run", "/proc/run")
    measured(f"refused after {time.monotonic() - started:.1f} s")
    refused(ended, "run.start", "run.start.access")
    assert "effective batch" not in ended.out


@pytest.mark.gate("R13")
def test_one_shard_feeds_two_processes_with_three_workers_each(
    programs: Programs, recipes: Path, tmp_path: Path, measured: Measured
):
    write_shard(tmp_path / "a.tar", range(43))
    words: Words = ["pretrain", "--config", recipes / "pretrain.yaml", "--data.path", tmp_path / "a.tar"]
    assert programs.run(*words, "--run", tmp_path / "one").code == 0
    ended = [
        rank.wait() for rank in group(programs, 2, *words, "--run", tmp_path / "two", "--machine.num_workers", "3")
    ]
    assert [end.code for end in ended] == [0, 0], ended
    measured(f"losses at most {close(tmp_path / 'two', tmp_path / 'one'):.1g} apart")


@pytest.mark.gate("R17")
def test_memory_does_not_grow(programs: Programs, words: Words, tmp_path: Path, campaign: bool, measured: Measured):
    """Resident memory of the trainer and its worker, at the steps that a line was written at."""
    if not campaign:
        pytest.skip("a quarter of an hour: `make faults`")
    steps_asked = 50_000
    epochs = [
        "--optimization.epochs",
        str(steps_asked / 6),
        "--intervals.log_every_n_steps",
        "500",
        "--intervals.checkpoint_every_n_steps",
        "5000",
    ]
    run, found = tmp_path / "run", []
    running = programs.start(
        *words, "--run", run, "--machine.num_workers", "1", *epochs, "--intervals.eval_every_n_steps", "100000"
    )
    process = psutil.Process(running.pid)
    while running.alive():
        time.sleep(2)
        with contextlib.suppress(psutil.Error, OSError, IndexError):
            family = [process, *process.children(recursive=True)]
            found.append((curve(run)[-1][0], sum(member.memory_info().rss for member in family) / 1e6))
    assert running.wait().code == 0, running.wait().err
    settled = np.array([point for point in found if steps_asked / 10 < point[0] < steps_asked])
    slope = 1000 * float(np.polyfit(settled[:, 0], settled[:, 1], 1)[0])
    measured(f"{slope:+.3f} MB in 1,000 steps over {steps_asked:,}")
    assert slope < 1
