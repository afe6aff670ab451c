"""A dry run of each training command: the plan it returns, the mistakes it finds, and that it leaves nothing."""
# Also tests training/samples.py.

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.errors import raises

import mae_kit as mk
from mae_kit.cli import main as cli
from mae_kit.comparison.cost import pretraining_cost
from mae_kit.encoders.tokenizers import DVAE
from mae_kit.reports.folder import read_batch_size
from mae_kit.training.fit import bytes_to_write
from mae_kit.training.modules import TokenizerModule

TOKENIZER: dict[str, Any] = {
    "model": {"class_path": "mae_kit.encoders.tokenizers.DVAE", "init_args": {"codes": 300, "stride": 8, "width": 4}},
    "data": {"batch_size": 16, "image_size": 16},
    "optimization": {"epochs": 3, "learning_rate": 1e-3},
    "machine": {"precision": "fp32"},
}


@pytest.fixture
def plans(recipes: Path, photos: Path, tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Arguments of each command's dry run: 96 images, 3 epochs, 16 images a step."""
    (tmp_path / "tokenizer.yaml").write_text(yaml.safe_dump(TOKENIZER))
    common = {"data": str(photos / "train-*.tar"), "run": str(tmp_path / "made" / "run"), "dry_run": True}
    return {
        "pretrain": {"config": recipes / "pretrain.yaml", **common},
        "finetune": {"config": recipes / "finetune.yaml", **common, "data.val": str(photos / "val-*.tar")},
        "tokenizer": {"config": tmp_path / "tokenizer.yaml", **common},
    }


@pytest.mark.parametrize("command", ["pretrain", "finetune", "tokenizer"])
def test_it_returns_the_plan_and_makes_nothing(command: str, plans: dict[str, dict[str, Any]], tmp_path: Path):
    before = sorted(tmp_path.rglob("*"))
    plan = getattr(mk, command)(**plans[command])
    assert plan.pop("bytes") > 10_000 and plan.pop("device") in ("cpu", "cuda", "mps")
    counts = {"steps": 18, "start": 0, "images": 96, "batch_size": 16, "epochs": 3}
    assert plan == {"run": str(tmp_path / "made" / "run"), **counts, "precision": "32-true"}
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", ["pretrain", "finetune", "tokenizer"])
@pytest.mark.parametrize(("accumulated", "batch"), [(1, 96), (8, 96), (40, 80)])
def test_a_batch_is_no_larger_than_the_set(
    command: str, accumulated: int, batch: int, plans: dict[str, dict[str, Any]], caplog: pytest.LogCaptureFixture
):
    changed = {"data.batch_size": 160, "machine.accumulate_grad_batches": accumulated}
    plan = getattr(mk, command)(**plans[command] | changed)
    assert plan["batch_size"] == batch and plan["steps"] == round(3 * 96 / batch)
    assert f"96 images: batches of {batch}, not of data.batch_size 160" in caplog.text


@pytest.mark.slow
def test_a_run_names_the_batch_size_it_was_trained_with(plans: dict[str, dict[str, Any]], tmp_path: Path):
    short = {"dry_run": False, "data.batch_size": 128, "epochs": 1, "machine.num_workers": 0}
    mk.pretrain(**plans["pretrain"] | short)
    run = tmp_path / "made" / "run"
    assert read_batch_size(run) == 96 and pretraining_cost(run)["images"] == 96
    assert mk.pretrain(resume=str(run))["steps"] == 1


@pytest.mark.parametrize("command", ["pretrain", "finetune", "tokenizer"])
@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"data": "nowhere"}, "data.path"),
        ({"epochs": -1}, "optimization.epochs"),
        ({"run": "{file}/run"}, "run.start"),
        ({"machine.accumulate_grad_batches": 5}, "data.batch_size"),
        ({"data.batch_size": 128, "machine.accumulate_grad_batches": 128}, "data.batch_size.devices"),
    ],
)
def test_it_finds_mistakes(
    command: str, changed: dict[str, Any], key: str, plans: dict[str, dict[str, Any]], tmp_path: Path
):
    (tmp_path / "file").write_text("")
    changed = {name: str(one).format(file=tmp_path / "file") for name, one in changed.items()}
    with raises(key):
        getattr(mk, command)(**plans[command] | changed)


def test_it_is_an_option_of_the_command_line(
    recipes: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["pretrain", recipes / "pretrain.yaml", "--data", photos / "train-*.tar", "--run", tmp_path / "run"]
    assert cli.main([*map(str, words), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "96 images, 3 epochs = 18 steps of 16 images" in printed and f"MB in {tmp_path / 'run'}" in printed
    assert not (tmp_path / "run").exists()


def test_the_bytes_are_those_the_run_asks_the_disk_for(plans: dict[str, dict[str, Any]]):
    module = TokenizerModule(DVAE(codes=300, stride=8, width=4), lr=1e-3)
    assert mk.tokenizer(**plans["tokenizer"])["bytes"] == bytes_to_write(module)
