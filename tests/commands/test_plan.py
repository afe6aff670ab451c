from pathlib import Path

import pytest
from support.errors import raises

import mae_kit
from mae_kit.training import pace


def test_it_measures_and_trains_nothing(
    photos: Path, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(pace, "SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)
    found = mae_kit.plan(str(recipes / "pretrain.yaml"), data=str(photos), epochs=2)
    assert (found["images"], found["images_seen"], found["steps"]) == (96, 192, 12)
    assert "192 images, repetitions counted, are too few to expect a gain" in capsys.readouterr().out.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []
    fitted = mae_kit.plan(str(recipes / "pretrain.yaml"), data=str(photos), minutes=2, labels_per_class=10)
    assert fitted["minutes"] == pytest.approx(2, rel=0.1) and "not measured" in fitted["expected"]


def test_on_gpus_it_counts_and_runs_nothing(
    photos: Path, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    recipe = str(recipes / "pretrain.yaml")
    found = mae_kit.plan(recipe, data="96000", epochs=2, gpus=2, gpu="t4", price=0.5)
    assert (found["images"], found["steps"], found["fits"], found["change"]) == (96_000, 12_000, True, [])
    assert found["cost"][1] == pytest.approx(2 * 0.5 * found["hours"][1]) and found["bytes"] > 0
    assert "2 x t4, 1 micro-batch per step: " in capsys.readouterr().out
    assert mae_kit.plan(recipe, data=str(photos), epochs=2, gpus=2)["images"] == 96
    with raises("minutes"):
        mae_kit.plan(recipe, data="96000", gpus=1, minutes=3)
    assert list(tmp_path.iterdir()) == []
