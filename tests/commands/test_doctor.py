"""The doctor's report, and that its self-test can fail."""

import json
import sys
from pathlib import Path

import pytest
import torch
from support.errors import raises

from mae_kit.commands import doctor as room
from mae_kit.commands.doctor import doctor


def test_the_report(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    found = doctor(folder=tmp_path)
    assert f"torch {torch.__version__.partition('+')[0]}" in found["packages"] and found["free_disk_gb"] > 0
    assert sys.platform != "linux" or found["shared_memory_gb"] > 0
    assert all(f"{name}: " in caplog.text for name in found) and list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist(tmp_path: Path):
    with raises("folder"):
        doctor(folder=tmp_path / "nowhere")


@pytest.mark.parametrize("file", ["metrics.jsonl", "model.safetensors"])
def test_a_run_that_differs_is_found(tmp_path: Path, file: str):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 0.5}) + "\n")
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
    assert room._compare(tmp_path / "whole", tmp_path / "killed") == {"self_test": "bit-identical", "steps": 1}
    (tmp_path / "killed" / file).write_text(json.dumps({"step": 1, "loss": 0.5000001}) + "\n")
    with raises("doctor.differs"):
        room._compare(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.usefixtures("elsewhere")
def test_files_of_a_run_are_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5, "note": "\u00e9"}\n', encoding="utf-8")
    assert room._losses(tmp_path) == [(1, 0.5)]
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nprintf 'fotos/\\303\\251\\351\\n'; exit 2\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with raises("doctor.run") as failed:
        room._finish([], tmp_path / "log")
    assert failed.value.fix == "fotos/\u00e9\ufffd"


@pytest.mark.long
@pytest.mark.usefixtures("forked")
def test_the_self_test(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    found = doctor(self_test=True, folder=tmp_path)
    assert (found["self_test"], found["steps"], found["kills"]) == ("bit-identical", 30, 3)
    assert caplog.text.count("killed after step") == 3 and list(tmp_path.iterdir()) == []
