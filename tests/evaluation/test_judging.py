"""The verbs: features that tell everything or nothing, and one real command line."""

import json
from pathlib import Path

import pytest
import torch
from made_up import clusters
from processes import Programs

import mae_kit
from mae_kit import cli, console
from mae_kit.evaluation import judging, probe
from mae_kit.evaluation.sides import Side, Sides


def made_up(noise: float) -> dict[str, Sides]:
    """Mean features of five clear classes, and class tokens that have nothing to do with them; a class has 9."""
    labels = torch.arange(5).repeat(9)
    (hints, _), truth = clusters(1, 45), torch.arange(5).repeat(40)
    clear = [torch.eye(5)[each] + noise * torch.rand(len(each), 5) for each in (labels, truth)]
    sides = Sides(Side(clear[0], labels), Side(clear[1], truth), 5)
    blind = Sides(Side(hints, labels), Side(torch.randn(200, 16), truth), 5)
    return {"mean": sides, "class": blind}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short probes; human lines on stdout."""
    monkeypatch.setattr(probe, "STEPS", 1)
    monkeypatch.setattr(console.console, "stderr", False)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up features stand for those of any encoder."""
    monkeypatch.setattr(judging, "frozen_sides", lambda *_: made_up(0.1))


WORDS = ["run", "--train", "t", "--val", "v"]


def test_every_method_tells_what_can_be_told(judged: None, capsys: pytest.CaptureFixture[str]):
    result = mae_kit.evaluate(Path("run"), train="t", val="v")
    assert (result["train"], result["val"], result["classes"]) == (45, 200, 5)
    assert list(result["scores"]) == ["knn", "fewshot 1", "fewshot 5", "fewshot 10", "fewshot 25", "probe"]
    for method in ("knn", "fewshot 1", "fewshot 5", "probe"):
        assert result["scores"][method]["mean"] == {"top1": 1, "low": 1, "high": 1}
        found = result["scores"][method]["class"]
        assert found["low"] < found["top1"] < found["high"] and 0.05 < found["top1"] < 0.4
    assert result["scores"]["fewshot 10"] == {"mean": None, "class": None}
    assert result["extent"]["class"]["dim"] == 16 and not result["extent"]["class"]["collapsed"]
    out = capsys.readouterr().out
    assert "100.0 [100.0, 100.0]" in out and "too few labels" in out and "COLLAPSED" not in out
    assert "45 images known, 200 scored, 5 classes" in out


def test_a_collapse_is_said_aloud(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    flat = Side(torch.ones(50, 8), torch.arange(5).repeat(10))
    monkeypatch.setattr(judging, "frozen_sides", lambda *_: {"mean": Sides(flat, flat, 5)})
    result = mae_kit.evaluate(Path("run"), train="t", val="v")
    assert result["extent"]["mean"]["collapsed"] and "COLLAPSED" in capsys.readouterr().out
    assert all(row["mean"] is None or row["mean"]["top1"] == pytest.approx(0.2) for row in result["scores"].values())


@pytest.mark.parametrize(
    ("verb", "words", "methods"),
    [
        ("knn", ["--k", "1", "--temperature", "1"], ["knn"]),
        ("fewshot", ["--shots", "[2,3]", "--seeds", "2"], ["fewshot 2", "fewshot 3"]),
        ("probe", ["--epochs", "2", "--batch-size", "16"], ["probe"]),
    ],
)
def test_each_method_alone(
    verb: str, words: list[str], methods: list[str], judged: None, capsys: pytest.CaptureFixture[str]
):
    assert cli.main([verb, *WORDS, *words, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["scores"]) == methods


@pytest.mark.parametrize(
    ("verb", "words", "error"),
    [
        ("knn", ["--k", "0"], "k is 0: give a number above 0"),
        ("fewshot", ["--shots", "[5,0]"], "shots is 0: give a number above 0"),
        ("probe", ["--epochs", "0"], "epochs is 0: give a number above 0"),
        ("knn", ["5"], "too many arguments, 5: see `mae-kit knn --help`"),
    ],
)
def test_numbers_that_make_no_sense(
    verb: str, words: list[str], error: str, judged: None, capsys: pytest.CaptureFixture[str]
):
    assert cli.main([verb, *WORDS, *words]) == 2
    assert capsys.readouterr().err == f"mae-kit: error: {error}\n"


def test_the_sides_are_named(judged: None, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["knn", "run", "--train", "t"]) == 2
    assert capsys.readouterr().err == "mae-kit: error: val is missing: add --val\n"


@pytest.mark.slow
def test_a_trained_encoder_on_its_shards(trained: Path, photos: Path, programs: Programs):
    words = [trained, "--train", photos / "train-*.tar", "--val", photos / "val-0.tar", "--workers", "1", "--json"]
    ended = programs.run("evaluate", *words)
    assert ended.code == 0, ended.err
    result = json.loads(ended.out)
    assert (result["train"], result["val"], result["classes"]) == (96, 32, 4)
    for row in (result["scores"][method] for method in ("knn", "fewshot 10", "probe")):
        assert all(0 <= row[token]["low"] <= row[token]["top1"] <= row[token]["high"] <= 1 for token in row)
    assert result["scores"]["probe"]["mean"]["low"] > 0.25  # the light's direction can be read from any patch features
