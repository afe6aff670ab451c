"""Several processes by `--devices`, without torchrun."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support.errors import raises
from support.processes import Programs

from mae_kit.cli.launch import device_count


@pytest.mark.long
def test_two_processes_train_into_the_folder_that_is_chosen_for_them(
    programs: Programs, photos: Path, recipes: Path, tmp_path: Path
):
    words = ["pretrain", recipes / "pretrain.yaml", "--data", photos / "train-*.tar", "--devices", "2"]
    ended = programs.run(*words, "--json", folder=tmp_path)
    assert ended.code == 0, ended.err
    result = json.loads(ended.out)
    assert (result["run"], result["steps"]) == (str(Path("runs") / "pretrain"), 18)
    assert "(2 devices x 8 images x 1 accumulated)" in ended.err and "run folder: " in ended.err
    assert ended.err.count("run folder: ") == 1, "the first process speaks for both"
    written = (tmp_path / "runs" / "pretrain" / "metrics.jsonl").read_text().splitlines()
    audits = [row for row in map(json.loads, written) if "audit_keys" in row]
    assert len(audits) == 3 and all(row["audit_keys"] == row["audit_expected"] for row in audits)


@pytest.mark.parametrize(("found", "count"), [(1, 1), (2, 2), (6, 4), (8, 8)])
def test_auto_is_a_process_on_each_core_that_can_share_a_batch(monkeypatch: pytest.MonkeyPatch, found: int, count: int):
    monkeypatch.setattr("mae_kit.cli.launch.cores", lambda: found)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert device_count("auto") == count
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert device_count("auto") == 3


@pytest.mark.parametrize("devices", ["0", "-1", "two", ""])
def test_a_number_of_devices_that_is_none(devices: str):
    with raises("devices"):
        device_count(devices)


def test_a_command_ends_with_the_one_that_started_it(tmp_path: Path):
    child = "import os, time; from mae_kit.cli.launch import follow_parent; follow_parent(); time.sleep(300)"
    parent = (
        "import os, subprocess, sys; from mae_kit.cli.launch import PARENT\n"
        "env = os.environ | {PARENT: str(os.getpid())}\n"
        "process = subprocess.Popen([sys.executable, '-c', sys.argv[1]], env=env)\n"
        "print(process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", parent, child], stdout=subprocess.PIPE, text=True, check=False)
    deadline = time.monotonic() + 60
    while is_running(int(ended.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
