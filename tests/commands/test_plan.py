from pathlib import Path

import pytest

import mae_kit
from mae_kit.training import pace


def test_it_measures_and_trains_nothing(
    photos: Path, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(pace, "SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)
    found = mae_kit.plan(str(recipes / "pretrain.yaml"), data=str(photos), epochs=2)
    assert (found["images"], found["images_seen"], found["steps"]) == (96, 192, 12)
    assert "192 images are too few to expect a gain" in capsys.readouterr().out.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []
    fitted = mae_kit.plan(str(recipes / "pretrain.yaml"), data=str(photos), minutes=2, labels_per_class=10)
    assert fitted["minutes"] == pytest.approx(2, rel=0.1) and "not measured" in fitted["expected"]
