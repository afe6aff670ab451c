"""The verb `inspect`: pictures beside the run and in its report."""

import json
from pathlib import Path

import pytest
from support.untrained_run import MEAN, STD, write_run

from mae_kit.cli import main as cli
from mae_kit.commands import inspect as inspection
from mae_kit.encoders import Swin
from mae_kit.weights.native import save_encoder
from mae_kit.weights.pretrained import EncoderConfig

PICTURES = ["attention", "features", "losses", "positions", "ratios"]


@pytest.fixture
def run(tmp_path: Path, photos: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    write_run(folder)
    (folder / "config.yaml").write_text(f"data: {{path: '{photos}/train-*.tar'}}\n")
    return folder


@pytest.mark.slow
def test_all_pictures_are_drawn_and_shown(run: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["inspect", str(run), "--count", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(found) == sorted([*PICTURES, "report"])
    assert sorted(path.name for path in (run / "inside").iterdir()) == [f"{name}.png" for name in PICTURES]
    page = (run / "report.html").read_text()
    assert "<h2>Inside the model</h2>" in page and page.count("<figure class=paper>") == len(PICTURES)


@pytest.mark.slow
def test_of_other_encoders_there_are_features(run: Path, capsys: pytest.CaptureFixture[str]):
    encoder = Swin("swin_tiny_patch4_window7_224", 32, embed_dim=8, depths=[1, 1], num_heads=[1, 2])
    config = EncoderConfig(encoder.name, encoder.model_args, MEAN, STD, "simmim", 1)
    save_encoder(run, encoder.model.state_dict(), config)
    assert cli.main(["inspect", str(run), "--count", "2", "--json"]) == 0
    assert sorted(json.loads(capsys.readouterr().out)) == ["features", "report"]


def test_a_run_that_does_not_name_its_images_asks_for_them(run: Path, capsys: pytest.CaptureFixture[str]):
    (run / "config.yaml").unlink()
    assert cli.main(["inspect", str(run)]) == 2
    assert "has no config.yaml, which names its images: give images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "told"),
    [("data: {shards: a.tar}", "has no data.path: give the run of a pretraining"), ("data: [", "is not YAML")],
)
def test_a_run_of_another_kind_and_a_damaged_one(run: Path, config: str, told: str, capsys: pytest.CaptureFixture[str]):
    (run / "config.yaml").write_text(config)
    assert cli.main(["inspect", str(run)]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.usefixtures("elsewhere")
def test_the_images_of_a_run_have_names_in_utf8(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("data: {path: \u00e9t\u00e9}\n", encoding="utf-8")
    assert inspection._trained_on(tmp_path) == "\u00e9t\u00e9"


def test_the_images_of_a_run_may_be_at_a_url(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("data: {path: 'https://images.example/train-*.tar'}\n")
    assert inspection._trained_on(tmp_path) == "https://images.example/train-*.tar"
