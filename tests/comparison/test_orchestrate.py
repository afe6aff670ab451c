"""Child processes: their results and reasons to fail, signals, and settings of a started run."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.errors import raises

from mae_kit.comparison import orchestrate
from mae_kit.comparison.orchestrate import Step, check_same_settings, run_all

PROGRAM = """#!/bin/sh
case $3 in
  well) echo '{"top1": 1}'; echo 'step 1' >&2; echo >&2; echo 'step 2' >&2 ;;
  wrong) echo 'a hint' >&2; echo 'mae-kit: error: no shards at x: give others' >&2; exit 2 ;;
  broken) printf 'Traceback:\\nValueError: nan\\nmae-kit 0.1: internal error; please report it\\n' >&2; exit 1 ;;
  silent) exit 3 ;;
  killed) kill -9 $$ ;;
  stopped) exit 143 ;;
  long) trap 'echo saved >> "$4"; exit 143' TERM; echo started > "$4"; for i in $(seq 200); do sleep 0.05; done ;;
esac
"""


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell script stands for Python."""
    path = tmp_path / "python"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    monkeypatch.setattr(orchestrate.sys, "executable", str(path))


def step(folder: Path, *words: str) -> Step:
    return Step(list(words), ["resumed"], folder / words[0], folder / words[0] / "result.json")


def test_results_and_logs(tmp_path: Path):
    assert run_all([step(tmp_path, "well")]) == [{"result": {"top1": 1}}]
    assert (tmp_path / "well.log").read_text() == "step 1\nstep 2\n"


def test_a_complete_step_is_read(tmp_path: Path):
    (tmp_path / "silent").mkdir()
    (tmp_path / "silent/result.json").write_text('{"top1": 0.5, "samples": 10}')
    assert run_all([step(tmp_path, "silent")]) == [{"result": {"top1": 0.5, "samples": 10}}]


def test_a_begun_step_is_resumed(tmp_path: Path):
    (tmp_path / "silent").mkdir()
    (tmp_path / "silent/config.yaml").touch()
    resumed = Step(["silent"], ["well"], tmp_path / "silent", tmp_path / "silent/result.json")
    assert run_all([resumed]) == [{"result": {"top1": 1}}]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_failure_is_one_line_and_does_not_stop_the_others(tmp_path: Path, workers: int):
    reasons = {
        "wrong": "no shards at x: give others",
        "broken": "ValueError: nan",
        "silent": "exit code 3",
        "killed": "killed by signal 9",
    }
    *failed, last = run_all([step(tmp_path, how) for how in (*reasons, "well")], workers)
    assert [one["error"] for one in failed] == list(reasons.values()) and last["result"]


def test_a_child_that_was_stopped_stops_all(tmp_path: Path):
    with pytest.raises(SystemExit) as stop:
        run_all([step(tmp_path, "stopped"), step(tmp_path, "well")])
    assert stop.value.code == 143 and not (tmp_path / "well.log").exists()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_children_which_save_what_they_have(tmp_path: Path, workers: int, sent: signal.Signals):
    before = signal.getsignal(signal.SIGTERM)
    marks = [tmp_path / f"mark{number}" for number in range(workers)]

    def stop() -> None:
        while not all(mark.exists() for mark in marks):
            time.sleep(0.01)
        os.kill(os.getpid(), sent)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        run_all([Step(["long", str(mark)], [], tmp_path / f"{mark.name}-run", mark / "x") for mark in marks], workers)
    assert [mark.read_text() for mark in marks] == ["started\nsaved\n"] * workers
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        ({}, False),
        ({"machine": {"threads": 2, "precision": "fp32"}}, False),
        ({"run": Path("elsewhere"), "encoder": "other"}, False),
        ({"machine": {"threads": 1, "precision": "bf16"}}, True),
        ({"optimization": {"betas": (0.9, 0.99)}}, True),
        ({"ema": 0.5}, True),
    ],
)
def test_a_started_run_keeps_its_settings(tmp_path: Path, asked: dict[str, Any], refused: bool):
    started = {
        "optimization": {"betas": (0.9, 0.95)},
        "machine": {"threads": 1, "precision": "fp32"},
        "encoder": "none",
    }
    plain = started | {"optimization": {"betas": [0.9, 0.95]}, "run": "here"}
    check_same_settings(tmp_path, asked)  # nothing has started
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain))
    if refused:
        with raises("compare.settings"):
            check_same_settings(tmp_path, started | asked)
    else:
        check_same_settings(tmp_path, started | {"run": "here"} | asked)
