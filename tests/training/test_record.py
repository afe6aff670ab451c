"""The bar of a training, as a terminal shows it; and its pace."""

import io
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytorch_lightning import Trainer
from rich.console import Console
from support.processes import Programs

from mae_kit import console
from mae_kit.training import record
from mae_kit.training.config import Plan

FLUSHES = """
import os
sync = os.fsync
def fsync(number):
    with open({told!r}, "a") as file:
        file.write(os.readlink(f"/proc/self/fd/{{number}}") + "\\n")
    sync(number)
os.fsync = fsync
"""
NOTE = "epoch 312.3/800  loss 0.4123  knn_top1 0.7312  1,412 images/s  data wait 3%"


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_training_is_one_line_with_steps_and_time_left_at_any_width(monkeypatch: pytest.MonkeyPatch, width: int):
    shown = Console(width=width, file=io.StringIO(), record=True, force_terminal=True)
    monkeypatch.setattr(console, "console", shown)
    monkeypatch.setattr(record, "console", shown)
    bar = record._bar()
    bar.add_task("", total=250_000, completed=97_600, note=NOTE)
    shown.print(bar)
    text = shown.export_text().rstrip()
    assert "\n" not in text and "97600/250000 steps -:--:--" in text and "loss 0.4123" in text
    assert text.endswith(NOTE) == (width > 80)


@pytest.mark.parametrize(("epochs", "told"), [(4.412, "1.0/4.3"), (1600.0, "1.0/1600"), (0.2, "1.0/0.333")])
def test_a_training_ends_after_whole_steps(monkeypatch: pytest.MonkeyPatch, epochs: float, told: str):
    plan = Plan(samples=48, batch_size=16, epochs=epochs, seed=0)
    monkeypatch.setattr(record, "total_steps", lambda trainer: plan.steps)
    told_by: Any = record.Record.__new__(record.Record)
    shown: list[str] = []
    told_by._bar, told_by._task = SimpleNamespace(update=lambda task, note: shown.append(note)), 0
    told_by._show(Trainer.__new__(Trainer), SimpleNamespace(epoch=plan.epoch), {"epoch": 1.0, "step": 3})
    assert shown == [f"epoch {told}"]


def test_time_for_pictures_and_scores_does_not_count_as_that_of_steps(monkeypatch: pytest.MonkeyPatch):
    module: Any = SimpleNamespace(images_per_step=8, rate=0.1)
    loader: Any = SimpleNamespace(waited=0.0)
    told = record.Record.__new__(record.Record)
    told.loader = loader
    told._mark, told._mark_step, told._mark_wait = 100.0, 0, 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: 160.0)
    told.leave_out(50)
    loader.waited = 2.0
    pace = told._pace(10, module)
    assert pace["images_per_second"] == 8 * 10 / 10 and pace["data_wait"] == 0.2


@pytest.mark.long
def test_metrics_are_on_the_disk_before_each_checkpoint(
    programs: Programs, photos: Path, recipes: Path, tmp_path: Path
):
    """Else a power cut could lose lines that no resumed run writes again."""
    told = tmp_path / "told"
    words = ["--config", recipes / "pretrain.yaml", "--data.path", photos / "train-*.tar", "--run", tmp_path / "run"]
    ended = programs.run("pretrain", *words, patch=FLUSHES.format(told=str(told)))
    assert ended.code == 0, ended
    names = [Path(line).name for line in told.read_text().splitlines()]
    files = [name for name in names if name in ("metrics.jsonl", "state.pt")]
    assert files == ["metrics.jsonl", "state.pt"] * files.count("state.pt") and files.count("state.pt") >= 2
