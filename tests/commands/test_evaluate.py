"""The verbs: features that tell everything or nothing, and one real command line."""
# Also tests comparison/trained.py, evaluation/known.py.

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.errors import raises
from support.features import clusters
from support.photo_shards import jpeg, write_members, write_shard
from support.processes import Programs
from support.tiny_models import MEAN, STD, save_run, shaken, tiny_config, tiny_mae, tiny_weights

import mae_kit
from mae_kit.cli import main as cli
from mae_kit.cli.main import read
from mae_kit.commands import evaluate as evaluating
from mae_kit.comparison import orchestrate
from mae_kit.comparison.orchestrate import Children, Failed
from mae_kit.evaluation import bootstrap as intervals
from mae_kit.evaluation import probe
from mae_kit.evaluation.bootstrap import Score, wilson
from mae_kit.evaluation.features import FeatureSource
from mae_kit.evaluation.labeled_features import FeatureSplits, LabeledFeatures
from mae_kit.evaluation.linear_probe import linear_probe
from mae_kit.files import tensor_file
from mae_kit.files.tensor_file import ENCODER
from mae_kit.training.lock import alone
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import save_classifier, save_encoder
from mae_kit.weights.recognize import load_encoder

NAMES = list("abcde")


def made_up(noise: float) -> dict[FeatureSource, FeatureSplits]:
    """Mean features of five clear classes, and class tokens that have nothing to do with them; a class has 9."""
    labels = torch.arange(5).repeat(9)
    (hints, _), truth = clusters(1, 45), torch.arange(5).repeat(40)
    clear = [torch.eye(5)[each] + noise * torch.rand(len(each), 5) for each in (labels, truth)]
    sides = FeatureSplits(LabeledFeatures(clear[0], labels), LabeledFeatures(clear[1], truth), NAMES)
    blind = FeatureSplits(LabeledFeatures(hints, labels), LabeledFeatures(torch.randn(200, 16), truth), NAMES)
    return {FeatureSource(12, "mean"): sides, FeatureSource(12, "class"): blind}


def by_name(result: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["method"], one["token"]): one for one in result["scores"]}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short probes, and intervals of few draws."""
    monkeypatch.setattr(probe, "STEPS", 1)
    monkeypatch.setattr(intervals, "DRAWS", 200)


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up features stand for those of any encoder; folders t, v and w have a shard each."""
    for number, name in enumerate("tvw"):
        (tmp_path / name).mkdir()
        write_shard(tmp_path / name / "a.tar", range(4 * number, 4 * number + 4))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluating, "feature_splits", lambda *_: made_up(0.1))
    encoder: Any = tiny_mae().encoder
    encoder.pretrained_cfg = tiny_config(encoder)
    monkeypatch.setattr(evaluating, "load_encoder", lambda path: load_encoder(path) if path.exists() else encoder)


WORDS = ["run", "--train", "t", "--val", "v"]


@pytest.mark.slow
def test_every_method_tells_what_can_be_told(
    judged: None, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    result = mae_kit.evaluate(Path("run"), train="t", val="v")
    assert (result["train"], result["val"], result["classes"]) == (45, 200, 5)
    scores = by_name(result)
    methods = ["knn", "fewshot 1", "fewshot 5", "fewshot 10", "fewshot 25", "probe"]
    assert list(scores) == [(method, token) for method in methods for token in ("mean", "class")]
    for method in ("knn", "fewshot 1", "fewshot 5", "probe"):
        known = {"method": method, "layer": 12, "token": "mean", "top1": 1, "low": wilson(1, 200)[0], "high": 1}
        known |= dict.fromkeys(("macro_f1", "macro_low", "macro_high"), 1)
        rows = [{"name": name, "images": 40, "precision": 1, "recall": 1, "f1": 1} for name in NAMES]
        assert scores[method, "mean"] == known | {"of_classes": rows}
        found = scores[method, "class"]
        assert found["low"] < found["top1"] < found["high"] and 0.05 < found["top1"] < 0.4
    assert scores["fewshot 10", "mean"]["top1"] is None
    assert [(one["token"], one["dim"], one["collapsed"]) for one in result["extents"]] == [
        ("mean", 5, False),
        ("class", 16, False),
    ]
    out = capsys.readouterr().out + caplog.text
    assert "100.0 [98.1, 100.0]" in out and "too few labels" in out and "collapsed" not in out
    assert "45 training images, 200 validation images, 5 classes" in out


def test_collapsed_features_are_warned_about(
    judged: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    flat = LabeledFeatures(torch.ones(50, 8), torch.arange(5).repeat(10))
    monkeypatch.setattr(
        evaluating, "feature_splits", lambda *_: {FeatureSource(1, "mean"): FeatureSplits(flat, flat, NAMES)}
    )
    result = mae_kit.evaluate(Path("run"), train="t", val="v")
    assert result["extents"][0]["collapsed"] and "collapsed" in caplog.text
    scored = [one["top1"] for one in result["scores"] if one["top1"] is not None]
    assert scored == [pytest.approx(0.2)] * len(scored) != []


def test_layers_are_rows_of_the_table(
    judged: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked: list[Any] = []
    two = {FeatureSource(layer, source.token): side for layer in (6, 12) for source, side in made_up(0.1).items()}
    monkeypatch.setattr(evaluating, "feature_splits", lambda *words: asked.append(words) or two)
    assert cli.main(["evaluate", *WORDS, "--methods", "knn", "--layers", "[6,12]"]) == 0
    assert asked[0][3:5] == ([6, 12], 0)
    rows = [line.split("│")[1:3] for line in capsys.readouterr().out.splitlines() if "knn" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [["knn", "6"], ["knn", "12"]]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["--attentive", "attentive_tiny_64px"], "out.needed"),
        (["--finetune", "vit_tinny_64px"], "recipe.name.unknown"),
        (["--out", "note/out"], "out.file"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    words: list[str], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: Callable[..., str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note").touch()
    for place in ("t", "v"):
        (tmp_path / place).mkdir()
    assert mistake("evaluate", *WORDS, *words) == key


class Finetunings:
    """Stand for the processes: so many of 200 images right, a broken one, and a signal after so many."""

    def __init__(self) -> None:
        self.words: list[list[str]] = []
        self.stop_at = 1000

    def __call__(self, words: list[str], log_file: Path, _: Children, __: bool) -> tuple[dict[str, Any], list[str]]:
        self.words.append(words)
        if len(self.words) == self.stop_at:
            raise SystemExit(143)
        if log_file.name.startswith("attentive"):
            raise Failed("it has no tokens")
        result = {"top1": 0.5, "macro_f1": 0.4, "samples": 200}
        run = log_file.with_suffix("")
        run.mkdir(exist_ok=True)
        (run / "result.json").write_text(json.dumps(result))
        return result, []


@pytest.fixture
def finetunings(judged: None, monkeypatch: pytest.MonkeyPatch) -> Finetunings:
    finetunings = Finetunings()
    monkeypatch.setattr(orchestrate, "call", finetunings)
    monkeypatch.setattr(evaluating, "_methods", lambda *_: {})
    return finetunings


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A pretraining with an encoder."""
    run, mae = tmp_path / "run", tiny_mae()
    save_run(run, mae)
    save_encoder(run, mae.encoder.model.state_dict(), tiny_weights(mae).config)
    (run / "config.yaml").write_text("objective: {}\n")
    return run


ASKED: dict[str, Any] = {"attentive": "attentive_tiny_64px", "finetune": "vit_tiny_64px"}


def test_trainings_are_scored_beside_the_frozen_features(
    finetunings: Finetunings, run: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    result = mae_kit.evaluate(run, train="t", val="v", seed=3, **ASKED)
    names = [Path(words[-1]).relative_to(run).as_posix() for words in finetunings.words]
    assert [name.rpartition("-")[0] for name in names] == ["evaluation/attentive", "evaluation/finetune"]
    arguments = [read("finetune", words[1:]) for words in finetunings.words]
    assert [each["blocks"] for each in arguments] == [0, None]
    assert [each["model"].args.get("global_pool") for each in arguments] == ["map", None]
    assert {(each["encoder"], each["model"].name, each["seed"]) for each in arguments} == {
        (str(run), "vit_base_patch16_224", 3)
    }
    failed, whole = result["trained"]
    assert whole["method"] == "finetune" and 0.42 < whole["low"] < 0.5 == whole["top1"]
    assert whole["high"] < 0.58 and (whole["macro_f1"], whole["macro_low"]) == (0.4, None)
    assert failed == {"method": "attentive", "error": "it has no tokens"}
    assert json.loads((run / "evaluation.json").read_text())["trained"] == result["trained"]
    assert result["failed"] == 1
    printed = capsys.readouterr().out + caplog.text
    assert "Trained: Top-1" in printed and "attentive failed: it has no tokens" in printed


def test_a_stopped_evaluation_resumes(finetunings: Finetunings, run: Path):
    finetunings.stop_at = 2
    with pytest.raises(SystemExit):
        mae_kit.evaluate(run, train="t", val="v", **ASKED)
    written = json.loads((run / "evaluation.json").read_text())
    assert written["extents"] and not written["trained"], "the scores of frozen features are kept"
    started = Path(finetunings.words[-1][-1])
    started.mkdir(exist_ok=True)
    (started / "config.yaml").write_text("")
    finetunings.words, finetunings.stop_at = [], 1000
    mae_kit.evaluate(run, train="t", val="v", **ASKED)
    failed_again, resumed = finetunings.words
    assert resumed[:3] == ["finetune", "--resume", str(started)]
    here = ["--data", "t", "--data.val", "v", "--encoder", str(run)]
    assert resumed[3:] == here, "data and encoder are given as they are now"
    assert Path(failed_again[-1]).name.startswith("attentive-")


def test_a_run_that_was_moved_keeps_its_trainings(
    finetunings: Finetunings, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: dict[str, Any] = {"finetune": "vit_tiny_64px"}
    mae_kit.evaluate(run, train="t", val="v", **asked)
    run.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    finetunings.words = []
    assert len(mae_kit.evaluate(Path("moved"), train="t", val="v", **asked)["trained"]) == 1
    assert not finetunings.words


def test_another_process_is_noticed_before_features_are_computed(
    finetunings: Finetunings, run: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(evaluating, "feature_splits", lambda *_: pytest.fail("features are computed"))
    with alone(run / "evaluation"), raises("run.in_use"):
        mae_kit.evaluate(run, train="t", val="v", attentive="attentive_tiny_64px")


@pytest.mark.parametrize("change", ["seed", "weights", "images"])
def test_another_question_is_another_training(finetunings: Finetunings, run: Path, tmp_path: Path, change: str):
    asked: dict[str, Any] = {"train": "t", "val": "v", "attentive": "attentive_tiny_64px"}
    mae_kit.evaluate(run, **asked)
    if change == "weights":
        save_encoder(run, tiny_mae(depth=1).encoder.model.state_dict(), tiny_weights(tiny_mae(depth=1)).config)
    if change == "images":
        write_shard(tmp_path / "v/a.tar", range(40, 49))
    mae_kit.evaluate(run, **asked, seed=int(change == "seed"))
    first, second = (words[-1] for words in finetunings.words)
    assert first != second


def test_an_encoder_made_for_a_while_is_kept_for_its_trainings(finetunings: Finetunings, run: Path):
    mae_kit.evaluate(run, train="t", val="v", attentive="attentive_tiny_64px", untrained=True)
    (words,) = finetunings.words
    kept = Path(words[words.index("--encoder") + 1])
    assert kept.parent == run / "evaluation-untrained"
    fresh, trained = (load_encoder(path).model.state_dict() for path in (kept, run))
    assert fresh.keys() == trained.keys() and not torch.equal(fresh["norm.bias"], trained["norm.bias"])
    assert (run / "evaluation-untrained.json").exists() and not (run / "evaluation.json").exists()


def test_earlier_scores_of_the_same_weights_and_images_stay(
    finetunings: Finetunings, run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    empty = {name: lambda _: Score("top1") for name in "ab"}

    def evaluated(val: str, layer: int, **asked: Any) -> dict[str, Any]:
        sides = {FeatureSource(layer, source.token): side for source, side in made_up(0.1).items()}
        monkeypatch.setattr(evaluating, "feature_splits", lambda *_: sides)
        monkeypatch.setattr(evaluating, "_methods", lambda *_: empty)
        told = mae_kit.evaluate(run, train="t", val=val, **asked)
        assert {one["layer"] for one in told["scores"]} == {layer} and len(told["trained"]) == len(asked)
        return json.loads((run / "evaluation.json").read_text())

    evaluated("v", 2, finetune="vit_tiny_64px")
    both = evaluated("v", 1)
    rows = [(one["method"], one["layer"], one["token"]) for one in both["scores"]]
    assert rows == [(name, layer, token) for name in "ab" for layer in (1, 2) for token in ("mean", "class")]
    assert [(one["layer"], one["token"]) for one in both["extents"]] == [row[1:] for row in rows[:4]]
    assert both["trained"][0]["top1"] == 0.5 and both["step"] == 7
    assert "are replaced" not in caplog.text
    other = evaluated("w", 1)
    assert {one["layer"] for one in other["scores"]} == {1} and not other["trained"]
    assert "evaluation.json held scores of other weights or other images" in caplog.text


@pytest.mark.slow
def test_what_is_no_run_is_written_to_where_it_is_asked(judged: None, run: Path, tmp_path: Path):
    result = mae_kit.evaluate(run / ENCODER.file, train="t", val="v", out=tmp_path / "out")
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["scores"] == result["scores"]


@pytest.mark.parametrize(
    ("methods", "rows"),
    [("knn", ["knn"]), ("probe,knn", ["probe", "knn"]), ("fewshot", [f"fewshot {n}" for n in (1, 5, 10, 25)])],
)
def test_only_the_methods_that_are_asked_for(
    methods: str, rows: list[str], judged: None, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["evaluate", *WORDS, "--methods", methods, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [one["method"] for one in result["scores"]] == [row for row in rows for _ in range(2)]


def test_an_unknown_method(judged: None):
    with raises("methods"):
        mae_kit.evaluate(Path("run"), train="t", val="v", methods="knn,svm")


def test_the_published_linear_probe_is_a_row_of_its_own(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluating, "linear_probe", partial(linear_probe, epochs=1))
    for name, numbers in (("train", range(40)), ("val", range(40, 48))):
        write_shard(tmp_path / f"{name}.tar", numbers)
    train, val = tmp_path / "train.tar", tmp_path / "val.tar"
    result = mae_kit.evaluate(run, train=train, val=val, methods="knn,linear_probe_mae", workers=1)
    last = result["scores"][-1]
    assert (last["method"], last["layer"], last["token"]) == ("linear_probe_mae", 2, "class")
    assert 0 <= last["low"] <= last["top1"] <= last["high"] <= 1


def test_the_classifier_of_a_fine_tuning_is_scored(tmp_path: Path):
    args: dict[str, Any] = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    config = ModelConfig("vit_base_patch16_224", args, MEAN, STD, image_size=(32, 32), crop_pct=0.9, classes=[*"0123"])
    model = shaken(timm.create_model(config.model, num_classes=4, img_size=32, **args))
    save_classifier(tmp_path, model, config)
    (tmp_path / "data").mkdir()
    for name, numbers in (("train", range(8)), ("val", range(8, 16))):
        write_shard(tmp_path / f"data/{name}-000.tar", numbers)
    result = mae_kit.evaluate(tmp_path, data=tmp_path / "data")
    (row,) = result["scores"]
    assert row["method"] == "classifier" and 0 <= row["low"] <= row["top1"] <= row["high"] <= 1 and result["val"] == 8
    save_classifier(tmp_path, model, replace(config, multi_label=True))
    with raises("data.classes"):
        mae_kit.evaluate(tmp_path, data=tmp_path / "data")


def test_a_classifier_is_scored_on_some_of_its_classes(tmp_path: Path):
    args: dict[str, Any] = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    config = ModelConfig("vit_base_patch16_224", args, MEAN, STD, image_size=(32, 32), classes=[*"abcd"])
    save_classifier(tmp_path, shaken(timm.create_model(config.model, num_classes=4, img_size=32, **args)), config)

    def scored(folder: str, names: str, labels: tuple[int, ...]) -> dict[str, Any]:
        (tmp_path / folder).mkdir()
        members = [(f"{n}.jpg", jpeg(n)) for n in range(8)] + [(f"{n}.cls", b"%d" % labels[n % 2]) for n in range(8)]
        write_members(tmp_path / folder / "val-0.tar", sorted(members))
        (tmp_path / folder / "classes.txt").write_text("\n".join(names))
        return mae_kit.evaluate(tmp_path, val=tmp_path / folder / "val-0.tar")["scores"][0]

    assert scored("some", "db", (0, 1)) == scored("all", "abcd", (3, 1))
    with raises("data.classes.of_model"):
        scored("other", "de", (0, 1))


def test_no_images(run: Path):
    with raises("data"):
        mae_kit.evaluate(run)


def test_the_encoder_file_is_opened_once_and_each_index_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opened: list[Path] = []

    def counted(module: Any, name: str) -> None:
        true = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda path, *rest, **more: opened.append(Path(path)) or true(path, *rest, **more)
        )

    counted(tensor_file, "safe_open")
    counted(evaluating, "open_index")
    file = str(run / ENCODER.file)
    sys.addaudithook(
        lambda event, args: opened.append(Path(file)) if (event, str(args[:1])) == ("open", file) else None
    )
    for name, numbers in (("train", range(40)), ("val", range(40, 48))):
        write_shard(tmp_path / f"{name}.tar", numbers)
    mae_kit.evaluate(run, train=tmp_path / "train.tar", val=tmp_path / "val.tar", methods="knn,probe", workers=1)
    assert opened.count(run / ENCODER.file) == 1
    assert [opened.count(tmp_path / f"{name}.tar") for name in ("train", "val")] == [1, 1]


@pytest.mark.long
def test_a_trained_encoder_on_its_shards(
    trained: Path, photos: Path, recipes: Path, programs: Programs, tmp_path: Path
):
    words = [trained, "--train", photos / "train-*.tar", "--val", photos / "val-0.tar", "--workers", "1", "--json"]
    ended = programs.run("evaluate", *words, "--attentive", recipes / "finetune.yaml", "--out", tmp_path)
    assert ended.code == 0, ended.err
    result = json.loads(ended.out)
    assert (result["train"], result["val"], result["classes"]) == (96, 32, 4)
    scores = by_name(result)
    for method in ("knn", "fewshot 10", "probe"):
        for one in (scores[method, token] for token in ("mean", "class")):
            assert one["layer"] == 2 and 0 <= one["low"] <= one["top1"] <= one["high"] <= 1
    assert scores["probe", "mean"]["low"] > 0.25  # the light's direction can be read from any patch features
    (attentive,) = result["trained"]
    (result_file,) = tmp_path.glob("evaluation/attentive-*/result.json")
    tuned = json.loads(result_file.read_text())
    assert attentive["method"] == "attentive" and attentive["top1"] == pytest.approx(tuned["top1"])
    assert "Attentive probe" in (tmp_path / "report.html").read_text("utf-8")


@pytest.mark.long
def test_a_trained_encoder_on_images_with_any_number_of_classes(trained: Path, programs: Programs, tmp_path: Path):
    for name, numbers in (("train", range(96)), ("val", range(1000, 1032))):
        write_shard(tmp_path / f"{name}.tar", numbers, sets=True)
    (tmp_path / "classes.txt").write_text("never\ndusk\nnoon\nnight\n")
    words = [trained, "--train", tmp_path / "train.tar", "--val", tmp_path / "val.tar", "--workers", "1", "--json"]
    ended = programs.run("evaluate", *words, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    scores = by_name(json.loads(ended.out))
    probe = scores["probe", "mean"]
    assert 0.6 < probe["low"] <= probe["map"] <= probe["high"] <= 1, "by chance .5, .25 and .25: a mean of .33"
    assert 0 <= probe["macro_low"] <= probe["macro_f1"] <= probe["macro_high"] <= 1
    assert [row["name"] for row in probe["of_classes"]] == ["never", "dusk", "noon", "night"]
    assert [row["images"] for row in probe["of_classes"]] == [0, 16, 8, 8]
    assert "Mean average precision" in (tmp_path / "out/report.html").read_text("utf-8")
