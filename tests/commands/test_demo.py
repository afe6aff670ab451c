"""The demo: what it refuses, what it computes, and all of it, shortened."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.errors import raises
from support.photo_shards import photo

from mae_kit.commands import demo as room
from mae_kit.commands.demo import demo
from mae_kit.evaluation.seeds import over_seeds
from mae_kit.parallel import processes


def write_classes(folder: Path, **counts: int) -> Path:
    """Class folders with so many photos each; a name may have a folder before it: `train__cat`."""
    for place, (name, count) in enumerate(counts.items()):
        path = folder / name.replace("__", "/")
        path.mkdir(parents=True)
        for number in range(count):
            photo(4 * number + place % 4).save(path / f"{number}.jpg")
    return folder


def shortened(course: room.Course) -> room.Course:
    return course._replace(pretrain_images=256, few_images=100, all_images=100)


@pytest.mark.parametrize(
    ("gains", "chance"), [([0.08, 0.09, 0.10], False), ([-0.02, 0.05, 0.01], True), ([-0.08, -0.09, -0.10], False)]
)
def test_a_gain_that_may_be_chance_is_called_so(gains: list[float], chance: bool):
    sentence = room.conclusion({"labels": 10, "gain": over_seeds(gains)._asdict()})
    assert ("may be chance" in sentence) == chance and f"{100 * sum(gains) / 3:+.1f} [" in sentence


def test_a_single_seed_has_no_interval():
    sentence = room.conclusion({"labels": 10, "gain": over_seeds([0.1])._asdict()})
    assert "+10.0 points" in sentence and "single fine-tuning" in sentence


def test_the_digits_are_scikit_learns(tmp_path: Path):
    from sklearn.datasets import load_digits

    folder = room.write_digits(tmp_path / "images")
    digits: Any = load_digits()
    paths = sorted(folder.glob("*/*.png"), key=lambda path: path.name)
    assert [int(path.parent.name) for path in paths] == digits.target.tolist()
    images = np.stack([np.asarray(Image.open(path)) for path in paths])
    assert images.shape == (1797, 32, 32) and images.dtype == np.uint8
    shrunk = images.reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4)) / 255 * 16
    assert np.corrcoef(shrunk.ravel(), digits.images.ravel())[0, 1] > 0.99
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize(
    ("counts", "key"), [({"cat": 5}, "images.classes"), ({"cat": 5, "dog": 1}, "images.few"), ({}, "shard.src")]
)
def test_folders_that_are_refused(tmp_path: Path, counts: dict[str, int], key: str):
    with raises(key):
        demo(tmp_path / "out", write_classes(tmp_path / "own", **counts))
    assert not (tmp_path / "out").exists()


def test_no_seeds_are_refused(tmp_path: Path):
    with raises("seeds"):
        demo(tmp_path / "out", seeds=0)


def test_a_split_of_ones_own_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "cores", lambda: 1)
    own = write_classes(tmp_path / "own", train__cat=4, train__dog=3, val__cat=2, val__dog=2)
    shards = room._shard(own, tmp_path / "shards", room.PHOTOS)
    assert (shards.images, shards.smallest, shards.classes) == (7, 3, 2)


@pytest.mark.long
@pytest.mark.usefixtures("forked")
def test_the_whole_demo_then_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr(room, "DIGITS", shortened(room.DIGITS))
    out = tmp_path / "demo"
    result = demo(out, seeds=2)
    assert [row["labels"] for row in result["rows"]] == [10, "all"]
    assert json.loads((out / "demo.json").read_text())["rows"] == result["rows"]
    page = (out / "report.html").read_text()
    assert "Pretrained against scratch" in page and "Reconstructions at step" in page
    told = capsys.readouterr().out + caplog.text
    assert told.count("$ mae-kit ") == 6 and result["conclusion"] in told and f"report: {out / 'report.html'}" in told

    scored = {path: path.stat().st_mtime_ns for path in out.glob("*/*/*/result.json")}
    assert len(scored) == 8
    (out / "finetune/10-labels/scratch-0/result.json").unlink()
    assert demo(out, seeds=2)["rows"] == result["rows"]
    changed = [path.parent.name for path, time in scored.items() if path.stat().st_mtime_ns != time]
    assert changed == ["scratch-0"]


@pytest.mark.long
@pytest.mark.usefixtures("forked")
def test_the_demo_on_ones_own_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "PHOTOS", shortened(room.PHOTOS))
    own = write_classes(tmp_path / "own", dawn=40, dusk=9, noon=40)
    rows = demo(tmp_path / "demo", own, seeds=1)["rows"]
    assert rows[0]["labels"] < 10 and rows[1]["labels"] == "all"
    assert all(row["gain"]["low"] is None for row in rows)
