"""The doctor: what it finds, and that its self-test can fail."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.errors import raises

from mae_kit.commands import doctor as room
from mae_kit.commands.doctor import doctor


def test_it_names_versions_device_and_room(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    found = doctor(folder=tmp_path)
    said = caplog.text
    assert f"torch {torch.__version__.partition('+')[0]}" in found["packages"] and found["free_disk_gb"] > 0
    assert all(f"{name}: " in said for name in found) and list(tmp_path.iterdir()) == []


def test_a_folder_that_is_none(tmp_path: Path):
    with raises("doctor.disk"):
        doctor(folder=tmp_path / "nowhere")


@pytest.mark.parametrize("file", ["metrics.jsonl", "model.safetensors"])
def test_a_run_that_differs_is_found(tmp_path: Path, file: str):
    for name in ("alone", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 0.5}) + "\n")
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
    assert room._compare(tmp_path / "alone", tmp_path / "killed") == {"self_test": "bit-identical", "steps": 1}
    (tmp_path / "killed" / file).write_text(json.dumps({"step": 1, "loss": 0.5000001}) + "\n")
    with raises("doctor.compare"):
        room._compare(tmp_path / "alone", tmp_path / "killed")


@pytest.mark.usefixtures("elsewhere")
def test_what_a_training_writes_is_utf8(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5, "note": "\u00e9"}\n', encoding="utf-8")
    assert room._curve(tmp_path) == [(1, 0.5)]
    (tmp_path / "log").write_bytes("fotos/\u00e9".encode() + b"\xe9\n")
    failed = subprocess.Popen([sys.executable, "-c", "raise SystemExit(2)"], text=True)
    with failed, raises("doctor.end"):
        room._end(failed, tmp_path / "log")


@pytest.mark.slow
def test_the_self_test(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    found = doctor(self_test=True, folder=tmp_path)
    assert (found["self_test"], found["steps"], found["kills"]) == ("bit-identical", 30, 3)
    assert caplog.text.count("killed after step") == 3 and list(tmp_path.iterdir()) == []
