"""Trainings whose weights are split across two processes: the same losses, checkpoints and results as in one."""

import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.errors import raises
from support.processes import Programs
from support.runs import SLOW, Words, audited, close, curve, group

from mae_kit.training.config import Machine

FSDP = ["--machine.strategy", "fsdp"]


@pytest.fixture
def words(photos: Path, recipes: Path) -> Words:
    return ["pretrain", "--config", recipes / "pretrain.yaml", "--data.path", photos / "train-*.tar"]


def same_weights(run: Path, other: Path) -> None:
    ours, theirs = (load_file(which / "model.safetensors") for which in (run, other))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-3


@pytest.mark.long
def test_a_split_training_is_the_whole_one(programs: Programs, words: Words, trained: Path, tmp_path: Path):
    """With the scores and plots of a whole model in between, and accumulation."""
    run = tmp_path / "run"
    ranks = group(programs, 2, *words, "--run", run, *FSDP, "--machine.accumulate_grad_batches", "2")
    ended = [rank.wait() for rank in ranks]
    assert [end.code for end in ended] == [0, 0], ended
    close(run, trained)
    same_weights(run, trained)


@pytest.mark.long
def test_it_is_stopped_and_goes_on_whole_and_split_again(
    programs: Programs, words: Words, trained: Path, tmp_path: Path
):
    run = tmp_path / "run"
    first = [*words, "--run", run]
    for stop, world in enumerate((2, 1, 2), start=1):
        ranks = group(programs, world, *first, *FSDP, patch=SLOW)
        ranks[0].wait_until(lambda stop=stop: len(curve(run)) >= stop if (run / "metrics.jsonl").exists() else False)
        ranks[-1].send(signal.SIGTERM)
        ended = [rank.wait() for rank in ranks]
        assert [end.code for end in ended] == [143] * world, ended
        first = ["pretrain", "--resume", run]
    ended = programs.run("pretrain", "--resume", run, "--machine.strategy", "ddp")
    assert ended.code == 0, ended.err
    assert audited(run) == [0, 1, 2]
    close(run, trained)
    same_weights(run, trained)


def test_a_compiler_and_splitting_do_not_go_together():
    with raises("machine.compile"):
        Machine(compile=True, strategy="fsdp")
