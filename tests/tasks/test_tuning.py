"""Few labels: in one process, from an encoder of two blocks, with trainings of a few steps."""
# Also tests reports/few_labels.py, tasks/few_labels.py.

import json
import logging
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.errors import raises
from support.processes import Programs
from support.tiny_models import ARGS, tiny_config

import mae_kit
from mae_kit.data.loading.loader import Replica
from mae_kit.encoders import ViT
from mae_kit.evaluation import probe
from mae_kit.evaluation.bootstrap import Score
from mae_kit.evaluation.labeled_features import LabeledFeatures
from mae_kit.tasks import tuning
from mae_kit.tasks.few_labels import Candidate, draw_folds
from mae_kit.tasks.mistakes import MOST
from mae_kit.tasks.tuning import FewLabels, Setting, can_tune
from mae_kit.training.config import Optimization
from mae_kit.training.samples import Stream
from mae_kit.weights.native import load_classifier, save_encoder

PLAIN: dict[str, Any] = {"augmentation.mixup": 0, "augmentation.cutmix": 0, "drop_path": 0, "ema": None}


@pytest.fixture
def few(photos: Path, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Arguments of a fine-tuning on 12 labels a class."""
    monkeypatch.setattr(probe, "STEPS", 3)
    torch.manual_seed(0)
    encoder = ViT("vit_base_patch16_224", **ARGS)
    (tmp_path / "encoder").mkdir()
    save_encoder(tmp_path / "encoder", encoder.model.state_dict(), tiny_config(encoder))
    length = {"data.labels_per_class": 12, "optimization.epochs": 1, "optimization.min_steps": 4, "model": None}
    return {"data": str(photos), "encoder": str(tmp_path / "encoder"), "tune": "auto", **PLAIN, **length}


def test_what_cross_validation_finds_best_is_the_classifier(
    few: dict[str, Any], recipes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = tmp_path / "run"
    found = mae_kit.finetune(str(recipes / "finetune.yaml"), run=str(run), **few)
    result = json.loads((run / "result.json").read_text())
    methods = {one["method"]: one for one in result["candidates"]}
    assert list(methods) == ["ridge", "knn", "probe", "finetune"]
    assert all(0 <= one["low"] <= one["top1"] <= one["high"] <= 1 for one in methods.values())
    scores = [methods[method]["cross_validated"] for method in ("finetune", "ridge", "probe")]
    best = ("finetune", "ridge", "probe")[tuning.preferred(scores, result["labeled_images"])]
    assert result["chosen"] == best and found["top1"] == result["top1"] == methods[best]["top1"]
    scored = mae_kit.evaluate(run, data=few["data"])
    assert scored["scores"][0]["top1"] == pytest.approx(result["top1"])
    assert json.loads((run / "tuning.json").read_text()) == result["tuned"]
    assert mae_kit.finetune(resume=str(run))["top1"] == result["top1"]
    wrong = sum(map(sum, result["confusion"])) - sum(row[i] for i, row in enumerate(result["confusion"]))
    assert len(result["mistakes"]) == min(wrong, MOST) == len(list((run / "mistakes").iterdir()))
    assert all(one["label"] != one["predicted"] for one in result["mistakes"])
    assert "What the fine-tuning is worth" in (run / "report.html").read_text()


def test_pretrained_and_scratch_are_compared(few: dict[str, Any], recipes: Path, tmp_path: Path):
    run = tmp_path / "run"
    found = mae_kit.finetune(str(recipes / "finetune.yaml"), run=str(run), against_scratch=True, **few)
    assert "points with 12 labels per class" in found["verdict"]
    scores = [json.loads((folder / "result.json").read_text())["top1"] for folder in (run, run / "scratch")]
    assert found["gain"]["mean"] == pytest.approx(scores[0] - scores[1])
    assert found["verdict"].split(" points")[0] in (run / "report.html").read_text()
    models = [load_classifier(folder).config for folder in (run, run / "scratch")]
    assert models[0].model == models[1].model and models[0].image_size == models[1].image_size
    with raises("against_scratch"):
        mae_kit.finetune(
            str(recipes / "finetune.yaml"), run=str(tmp_path / "new"), against_scratch=True, **few | {"encoder": "none"}
        )


def test_where_trials_prefer_the_recipe_it_is_trained_as_without_tuning(
    few: dict[str, Any], recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tuning, "preferred", lambda scores, images: 0)
    for tune in ("auto", "none"):
        mae_kit.finetune(str(recipes / "finetune.yaml"), run=str(tmp_path / tune), **few | {"tune": tune})
    weights = [load_classifier(tmp_path / tune).state_dict() for tune in ("auto", "none")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


@pytest.mark.parametrize(
    ("ridge", "tuned", "best"), [(0.56, 0.5, "ridge"), (0.4, 0.5, "finetune"), (0.54, 0.5, "finetune")]
)
def test_neighbors_are_reported_and_not_chosen(ridge: float, tuned: float, best: str):
    images = LabeledFeatures(torch.zeros(100, 2), torch.zeros(100, dtype=torch.long))
    frozen = [Candidate("ridge", ridge, Score("top1", 0.9)), Candidate("knn", 0.99, Score("top1"))]
    assert FewLabels(torch.nn.Identity(), images, frozen, Setting("recipe", 1e-3, 1.0, tuned)).best() == best


@pytest.mark.long
def test_a_signal_during_the_trials_loses_none(programs: Programs, few: dict[str, Any], recipes: Path, tmp_path: Path):
    run, settings = tmp_path / "run", few | {"optimization.min_steps": 60}
    words = [word for name, value in settings.items() for word in (f"--{name}", json.dumps(value).strip('"'))]
    training = programs.start("finetune", recipes / "finetune.yaml", "--run", run, *words)
    training.wait_until((run / "trials.json").is_file)
    os.kill(training.pid, signal.SIGTERM)
    ended = training.wait()
    assert ended.code == -signal.SIGTERM or (ended.code == 143 and f"continue with --resume {run}" in ended.out), ended
    done = json.loads((run / "trials.json").read_text())["scores"]
    assert 0 < len(done) < 6
    ended = programs.run("finetune", "--resume", run)
    assert ended.code == 0 and f"of {6 - len(done)}, learning rate" in ended.out, ended
    assert done.items() <= json.loads((run / "trials.json").read_text())["scores"].items()


@pytest.mark.parametrize(("learned", "warns"), [(0.3, True), (0.4, True), (0.5, False)])
def test_an_encoder_no_better_than_untrained_weights_is_warned_about(
    learned: float, warns: bool, caplog: pytest.LogCaptureFixture
):
    tuning.warn_of_no_gain(learned, 0.4)
    assert ("untrained weights" in caplog.text) is warns


@pytest.mark.parametrize("tune", ["auto", "none"])
def test_the_encoder_is_judged_before_the_training(
    few: dict[str, Any], recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tune: str
):
    class Judged(Exception):
        pass

    def judge(learned: float, before: float) -> None:
        assert 0 <= learned <= 1 and 0 <= before <= 1
        raise Judged

    monkeypatch.setattr(tuning, "warn_of_no_gain", judge)
    with pytest.raises(Judged):
        mae_kit.finetune(str(recipes / "finetune.yaml"), run=str(tmp_path / "run"), **few | {"tune": tune})


@pytest.mark.parametrize(
    ("images", "devices", "head", "said"),
    [
        (100, 1, torch.nn.Linear(2, 2), ""),
        (2001, 1, torch.nn.Linear(2, 2), "2,001 labeled images are more than 2,000"),
        (11, 1, torch.nn.Linear(2, 2), "11 labeled images are fewer than 12"),
        (100, 2, torch.nn.Linear(2, 2), "--devices 1"),
        (100, 1, torch.nn.Identity(), "no linear layer"),
    ],
)
def test_what_cannot_be_tuned_is_told_in_one_line(
    images: int, devices: int, head: torch.nn.Module, said: str, caplog: pytest.LogCaptureFixture
):
    class Model(torch.nn.Module):
        forward_head = None

        def get_classifier(self) -> torch.nn.Module:
            return head

    nothing: Any = None
    stream = Stream(nothing, np.arange(images), nothing, Replica(world_size=devices))
    with caplog.at_level(logging.INFO):
        assert can_tune(Model(), stream) is (not said)
    assert len(caplog.records) == bool(said) and said in caplog.text


def test_the_recipes_setting_is_tried_first_and_alone_from_scratch():
    recipe = Optimization(epochs=1, base_learning_rate=1e-3, layer_decay=0.85)
    own, gentle = tuning.settings(recipe, 128, pretrained=True)
    assert own == ("recipe", pytest.approx(5e-4), 0.85, 0) and gentle == ("ridge", pytest.approx(1.5e-4), 0.85, 0)
    assert tuning.settings(recipe, 128, pretrained=False) == [own]


@pytest.mark.parametrize(("better", "chosen"), [(0.1, 1), (0.25, 2)])
def test_a_setting_must_be_clearly_better_than_the_recipes(
    better: float, chosen: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ran: list[tuple[float, list[int]]] = []

    def run(trials: tuning.Trials, setting: Setting, rows: np.ndarray, held: np.ndarray) -> float:
        ran.append((setting.learning_rate, held.tolist()))
        assert sorted([*rows, *held]) == list(range(10, 16))
        return 0.5 + better * (setting.learning_rate == 2)

    monkeypatch.setattr(tuning.Trials, "run", run)
    trials = tuning.Trials._make([None] * len(tuning.Trials._fields))._replace(kept=tmp_path / "trials.json")
    rows, folds = np.arange(10, 16), np.array([0, 0, 1, 1, 2, 2])
    candidates = [Setting("recipe", 1, 1.0), Setting("ridge", 2, 1.0)]
    best = tuning.tune(trials, candidates, rows, folds)
    assert ran == [(rate, [row, row + 1]) for rate in (1, 2) for row in (10, 12, 14)]
    assert best.learning_rate == chosen and best.cross_validated == pytest.approx(0.5 + better * (chosen == 2))
    ran.clear()
    assert tuning.tune(trials, candidates, rows, folds) == best and not ran  # a resumed run has its trials


def test_folds_hold_a_third_of_each_class():
    labels = torch.arange(60) % 4
    folds = draw_folds(labels, 0)
    assert [np.bincount(folds[labels == label]).tolist() for label in range(4)] == [[5, 5, 5]] * 4
    assert np.bincount(draw_folds(torch.rand(60, 3) < 0.5, 0)).tolist() == [20, 20, 20]
