"""The best weights of a run, and the end of one that gets no better: kept, ended, killed and resumed."""

import json
import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.errors import raises
from support.runs import scored

import mae_kit
from mae_kit.files.durable import replace_text
from mae_kit.files.run_folder import RunFolder
from mae_kit.training.best import Best
from mae_kit.training.checkpoint import checkpoints_in
from mae_kit.weights.native import load_classifier

OFTEN = {"intervals.eval_every_n_steps": 4}
LAME = OFTEN | {"optimization.learning_rate": 1e-12, "patience": 2}


@pytest.fixture(params=["pretrain", "finetune"])
def verb(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def train(verb: str, photos: Path, recipes: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs the command of the verb in this process, without the page at its end."""
    monkeypatch.setattr(f"mae_kit.commands.{verb}.report", lambda run: {})
    held_out = {"pretrain": "data.knn_shards", "finetune": "data.val"}[verb]
    paths = {"data.path": str(photos / "train-*.tar"), held_out: str(photos / "val-*.tar")}
    return partial(getattr(mae_kit, verb), recipes / f"{verb}.yaml", **paths)


def kept(run: Path) -> dict[str, Any]:
    return json.loads(RunFolder(run).best.score.read_text())


def weights(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "best").iterdir()}


def test_the_first_of_equals_counts(tmp_path: Path):
    best = Best(RunFolder(tmp_path), 10, 2, lambda folder, step: (folder / "weights").write_text(str(step)))
    assert best.found() == {} and not best.is_over(1000)
    for step, value in ((10, math.nan), (20, 0.5), (30, 0.6), (40, 0.6), (50, 0.1)):
        best.offer(step, "top1", value)
        assert best.is_over(step) == (step == 50)
    assert best.found() == {"step": 30, "metric": "top1", "value": 0.6}
    assert (tmp_path / "best" / "weights").read_text() == "30"


class Killed(Exception):
    pass


@pytest.mark.long
def test_killed_while_it_keeps_them_it_resumes_to_the_same(
    train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
):
    """Killed before the weights are signed, and before the second ones are."""
    whole, killed, settings = tmp_path / "whole", tmp_path / "killed", OFTEN | {"keep": "best", "epochs": 2}
    result = train(run=whole, **settings)
    name = {"pretrain": "knn_top1", "finetune": "val_top1"}[verb]
    step, value = max(((step, value) for step, value in scored(whole, name) if step), key=lambda each: each[1])
    assert result["best"] == kept(whole) == {"step": step, "metric": name, "value": value}
    calls = iter(range({"pretrain": 0, "finetune": 1}[verb]))

    def replace(path: Path, text: str) -> None:
        if next(calls, None) is None:
            raise Killed
        replace_text(path, text)

    with monkeypatch.context() as patched, suppress(Killed):
        patched.setattr("mae_kit.training.best.replace_text", replace)
        train(run=killed, **settings)
    getattr(mae_kit, verb)(resume=killed)
    assert weights(killed) == weights(whole) and scored(killed, name) == scored(whole, name)


@pytest.mark.long
def test_a_run_that_gets_no_better_ends(train: Callable[..., Any], tmp_path: Path, verb: str):
    run, resume = tmp_path / "run", partial(getattr(mae_kit, verb), resume=tmp_path / "run")
    train(run=run, **LAME)
    last = kept(run)["step"] + 8
    assert last < 18 and json.loads((run / "complete.json").read_text()) == {"steps": last}
    files = {path: path.read_bytes() for path in run.glob("*.safetensors")}
    resume()
    assert scored(run, kept(run)["metric"])[-1][0] == last, "it is complete"
    (run / "complete.json").unlink()  # killed before it was
    resume()
    assert {path: path.read_bytes() for path in files} == files
    assert checkpoints_in(run / "checkpoints")[-1].name == f"step-{last:08d}"
    resume(patience=None)
    assert json.loads((run / "complete.json").read_text()) == {"steps": 18}


@pytest.mark.long
@pytest.mark.parametrize("verb", ["finetune"])
def test_commands_take_the_best_weights(train: Callable[..., Any], trained: Path, photos: Path, tmp_path: Path):
    train(run=tmp_path / "run", keep="best", encoder=str(trained), model=None, **OFTEN)
    assert load_classifier(tmp_path / "run" / "best").config.classes
    assert mae_kit.export(tmp_path / "run" / "best", tmp_path / "exported")["files"]
    (shard,) = photos.glob("val-*.tar")
    assert len(mae_kit.predict(tmp_path / "run" / "best", [shard], limit=3)["predictions"]) == 3


def test_without_labels_no_weights_are_better(photos: Path, recipes: Path, tmp_path: Path):
    for asked in ({"keep": "best"}, {"patience": 2}):
        with raises("keep"):
            mae_kit.pretrain(recipes / "pretrain.yaml", **{"data.path": photos / "train-*.tar"}, run=tmp_path, **asked)
