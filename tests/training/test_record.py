"""The bar of a training, as a terminal shows it."""

import io

import pytest
from rich.console import Console

from mae_kit import console
from mae_kit.training import record

NOTE = "epoch 312.3/800  loss 0.4123  knn_top1 0.7312  1,412 images/s  data wait 3%"


@pytest.mark.parametrize("width", [80, 120, 200])
def test_time_left_and_steps_are_whole_at_any_width(monkeypatch: pytest.MonkeyPatch, width: int):
    shown = Console(width=width, file=io.StringIO(), record=True, force_terminal=True)
    monkeypatch.setattr(console, "console", shown)
    monkeypatch.setattr(record, "console", shown)
    bar = record._bar()
    bar.add_task("", total=250_000, completed=97_600, note=NOTE)
    shown.print(bar)
    text = shown.export_text()
    assert "97600/250000 steps -:--:--" in text
    assert text.rstrip().endswith(NOTE) == (width > 80)
    assert all(word in text for word in NOTE.split())
