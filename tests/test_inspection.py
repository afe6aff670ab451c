"""The verb `inspect`: pictures beside the run and in its report."""

import json
from pathlib import Path

import pytest
from untrained import write_run

from mae_kit import cli

PICTURES = ["attention", "features", "losses", "positions", "ratios"]


@pytest.fixture
def run(tmp_path: Path, photos: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    write_run(folder)
    (folder / "config.yaml").write_text(f"data: {{shards: '{photos}/train-*.tar'}}\n")
    return folder


@pytest.mark.slow
def test_all_pictures_are_drawn_and_shown(run: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["inspect", str(run), "--count", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(found) == sorted([*PICTURES, "report"])
    assert sorted(path.name for path in (run / "inside").iterdir()) == [f"{name}.png" for name in PICTURES]
    page = (run / "report.html").read_text()
    assert "<h2>Inside the model</h2>" in page and page.count("<figure class=paper>") == len(PICTURES)


def test_a_run_that_does_not_name_its_images_asks_for_them(run: Path, capsys: pytest.CaptureFixture[str]):
    (run / "config.yaml").unlink()
    assert cli.main(["inspect", str(run)]) == 2
    assert "has no config.yaml, which names its images: give images" in capsys.readouterr().err
