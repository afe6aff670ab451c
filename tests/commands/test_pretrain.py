"""The verb `pretrain`: what it leaves behind, and its users' mistakes, which leave nothing."""

import json
import logging
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file
from support.photo_shards import write_shard
from support.processes import Ended, Programs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import mae_kit
from mae_kit.commands.pretrain import _tell
from mae_kit.training import pace
from mae_kit.training.lock import LOCK


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("intervals: null", "intervals"),
        ("machine: 3", "machine"),
        ("seed: null", "seed"),
        ("machine: {num_workers: }", "machine.num_workers"),
        ("objective: {init_args: {mask_ratio: }}", "objective.mask_ratio"),
        ("objective: {init_args: {encoder: {init_args: {name: }}}}", "objective.encoder.name"),
    ],
)
def test_empty_keys_of_a_recipe(recipes: Path, tmp_path: Path, mistake: Callable[..., str], line: str, key: str):
    (tmp_path / "more.yaml").write_text(line)
    words = ["--config", recipes / "pretrain.yaml", "--config", tmp_path / "more.yaml"]
    assert mistake("pretrain", *words, "--data.path", tmp_path, "--run", tmp_path / "run") == key
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ("--data.path nowhere", "data.path.missing"),
        ("--data.path {recipes}", "shard.src.no_image"),
        ("--data.path {photos}/test-*.tar", "shards.unknown"),
        ("--data.batch_size 0", "data.batch_size"),
        ("--machine.accumulate_grad_batches 3", "data.batch_size.divisible"),
        ("--seed 99999999999999999999", "seed"),
        ("--objective.init_args.decoder_heads 3", "objective.decoder_heads"),
        ("--objective.init_args.decoder_dim 34", "objective.sizes"),
        ("--optimization.lr 1", "--optimization.lr"),
        ("--data.exclude nowhere.jsonl", "data.exclude.missing"),
        ("--data.mean [0.5]", "data.mean.channels"),
        ("--data.masks 0", "data.masks"),
        ("--run=", "run"),
        ("--init=", "init"),
        ("--data.crop_scale [0,0.5]", "data.crop_scale"),
        ("--optimization.layer_decay 0.5", "optimization.layer_decay"),
        ("--optimization.min_steps 100", "optimization.min_steps"),
        ("--data.knn_shards {unlabeled}", "data.knn_shards.no_labels"),
        ("--objective.init_args.mask grid --objective.init_args.mask_ratio 0.5", "objective.mask"),
        ("--objective.init_args.encoder.init_args.name vit_tinny", "encoder.name.unknown"),
        ("--data.mean [123.7,116.3,103.5]", "data.mean"),
        ("--data.color_jitter -1", "data.color_jitter"),
        ("--objective.init_args.decoder_depth -1", "objective.decoder_depth"),
        ("--objective.init_args.decoder_depth 1000000", "objective.decoder_depth"),
        ("--objective.init_args.encoder.init_args.depth 0", "encoder.model_args.refused"),
        ("--run {file}/run", "run.start"),
        ("--resume {empty} --run {empty}", "resume.config"),
    ],
)
def test_mistakes_are_told_in_one_line_and_leave_nothing(
    photos: Path, recipes: Path, tmp_path: Path, mistake: Callable[..., str], changed: str, key: str
):
    (tmp_path / "file").write_text("")
    for name in ("empty", "unlabeled"):
        (tmp_path / name).mkdir()
    write_shard(tmp_path / "unlabeled" / "a.tar", range(8), labels=False)
    folders = {name: tmp_path / name for name in ("file", "empty", "unlabeled")}
    words = ["--config", recipes / "pretrain.yaml", "--data.path", photos / "train-*.tar", "--run", tmp_path / "run"]
    assert mistake("pretrain", *words, *changed.format(photos=photos, recipes=recipes, **folders).split()) == key
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "unlabeled"]


def test_a_read_only_folder(
    photos: Path, recipes: Path, tmp_path: Path, mistake: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    """As the system tells it; the superuser that tests may run as would write anyway."""

    def mkdir(path: Path, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    words = ["--config", recipes / "pretrain.yaml", "--data.path", photos / "train-*.tar", "--run", tmp_path / "run"]
    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert mistake("pretrain", *words) == "run.start"


@pytest.mark.slow
def test_a_run_that_exists_is_not_overwritten(trained: Path, photos: Path, recipes: Path, mistake: Callable[..., str]):
    words = ["--config", recipes / "pretrain.yaml", "--data.path", photos / "train-*.tar", "--run", trained]
    assert mistake("pretrain", *words) == "run.exists"


@pytest.mark.slow
def test_what_a_run_leaves(trained: Path):
    names = {path.name for path in trained.iterdir()}
    files = {
        "complete.json",
        "config.yaml",
        "metrics.jsonl",
        "encoder.safetensors",
        "encoder.json",
        "model.safetensors",
        "report.html",
    }
    assert names == files | {"tensorboard", "checkpoints", "reconstructions", LOCK}
    assert [path.name for path in (trained / "reconstructions").iterdir()] == ["step-00000018.png"]
    every = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in every if "loss" in row]
    assert [row["step"] for row in rows] == [3, 6, 9, 12, 15, 18]
    assert [(row["step"], row["audit_epoch"]) for row in every if "audit_epoch" in row] == [(6, 0), (12, 1), (18, 2)]
    assert rows[-1]["loss"] < rows[0]["loss"] and rows[-1]["bad_samples"] == rows[-1]["skipped_steps"] == 0
    events = EventAccumulator(str(trained / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [3, 6, 9, 12, 15, 18]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx([row["loss"] for row in rows])
    assert [event.step for event in events.Images("reconstructions")] == [18]


@pytest.mark.slow
def test_the_encoder_is_the_one_in_the_model_and_loads_in_plain_timm(trained: Path):
    config = json.loads((trained / "encoder.json").read_text())
    tensors = load_file(trained / "encoder.safetensors")
    model = timm.create_model(config["model"], num_classes=0, **config["model_args"])
    model.load_state_dict(tensors, strict=True)
    whole = load_file(trained / "model.safetensors")
    assert all(torch.equal(tensor, whole[f"encoder.model.{name}"]) for name, tensor in tensors.items())
    assert config["objective"] == "MAE" and config["step"] == 18


@pytest.mark.slow
def test_the_saved_config_runs_again_to_the_same_weights(programs: Programs, trained: Path, tmp_path: Path):
    ended = programs.run("pretrain", "--config", trained / "config.yaml", "--run", tmp_path / "again")
    assert ended.code == 0, ended.err
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    configs = [yaml.safe_load((run / "config.yaml").read_text()) for run in (trained, tmp_path / "again")]
    assert configs[0] | {"run": ""} == configs[1] | {"run": ""}


@pytest.mark.slow
def test_another_seed_is_another_training_and_json_is_alone_on_stdout(
    programs: Programs, trained: Path, tmp_path: Path
):
    words = ["pretrain", "--config", trained / "config.yaml", "--run", tmp_path / "run", "--seed", "1"]
    ended: Ended = programs.run(*words, "--optimization.epochs", "0.5", "--json")
    result = json.loads(ended.out)
    assert result["run"] == str(tmp_path / "run") and result["steps"] == result["step"] == 3
    assert "learning rate 0.001" in ended.err and "effective batch 16" in ended.err
    losses = [
        json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["loss"] for run in (trained, tmp_path / "run")
    ]
    assert losses[0] != losses[1]


DTYPES = """
import torch
linear, seen = torch.nn.Linear.forward, set()
def forward(self, x):
    product = linear(self, x)
    if product.dtype not in seen:
        seen.add(product.dtype)
        print("a product in", product.dtype, flush=True)
    return product
torch.nn.Linear.forward = forward
"""
"""Tells each type that a layer's product has."""


@pytest.mark.long
def test_half_precision_and_odd_encoders_train(programs: Programs, photos: Path, recipes: Path, tmp_path: Path):
    """A rectangle with registers, one channel, in bf16."""
    encoder = "--objective.init_args.encoder.init_args."
    words = [
        "--data.mean",
        "[0.5]",
        "--data.std",
        "[0.25]",
        "--optimization.epochs",
        "1",
        "--machine.precision",
        "bf16",
    ]
    words += [
        f"{encoder}name",
        "vit_small_patch14_reg4_dinov2",
        f"{encoder}img_size",
        "[32, 48]",
        f"{encoder}in_chans",
        "1",
    ]
    ended = programs.run(
        "pretrain",
        "--config",
        recipes / "pretrain.yaml",
        "--data.path",
        photos / "train-*.tar",
        "--run",
        tmp_path / "run",
        *words,
        patch=DTYPES,
    )
    assert ended.code == 0 and "bf16 autocast, as requested" in ended.out, ended.err
    assert "a product in torch.bfloat16" in ended.out
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in weights.values())


@pytest.mark.slow
def test_shards_with_damage_beside_good_ones(programs: Programs, photos: Path, recipes: Path, tmp_path: Path):
    shards = shutil.copytree(photos, tmp_path / "shards")
    data = (shards / "train-1.tar").read_bytes()
    cut = len(data) // 2 + 100
    with tarfile.open(shards / "train-1.tar") as tar:
        whole = sum(member.name.endswith(".cls") and member.offset_data + member.size <= cut for member in tar)
    (shards / "train-1.tar").write_bytes(data[:cut])
    (shards / "train-2.tar").write_bytes(b"no tar at all")
    words = ["--data.path", shards / "train-*.tar", "--run", tmp_path / "run", "--optimization.epochs", "2"]
    ended = programs.run("pretrain", "--config", recipes / "pretrain.yaml", *words)
    assert ended.code == 0, ended.err
    every = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["audit_samples"] for row in every if "audit_epoch" in row] == [32 + whole]


@pytest.mark.slow
def test_samples_on_a_list_are_not_trained_on_and_another_list_is_another_run(
    programs: Programs, photos: Path, recipes: Path, tmp_path: Path
):
    shards = shutil.copytree(photos, tmp_path / "shards")
    (shards / "train-3.tar").write_bytes((shards / "train-2.tar").read_bytes())  # 32 samples twice
    deduped = programs.run("dedup", shards / "train-*.tar", "--workers", "1", "--json")
    assert json.loads(deduped.out)["duplicates"] == 32, deduped.err
    words = ["--data.path", shards / "train-*.tar", "--data.exclude", shards / "duplicates.jsonl"]
    words += ["--run", tmp_path / "run", "--optimization.epochs", "1"]
    ended = programs.run("pretrain", "--config", recipes / "pretrain.yaml", *words)
    assert ended.code == 0, ended.err
    every = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    audits = [row for row in every if "audit_epoch" in row]
    assert [row["audit_samples"] for row in audits] == [96] and audits[0]["audit_keys"] == audits[0]["audit_expected"]
    lines = (shards / "duplicates.jsonl").read_text().splitlines(keepends=True)
    (shards / "duplicates.jsonl").write_text("".join(lines[:-1]))
    again = programs.run("pretrain", "--resume", tmp_path / "run", "--optimization.epochs", "2")
    assert (again.code, again.key) == (2, "resume.data")
    (shards / "duplicates.jsonl").write_text("".join(lines))
    assert programs.run("pretrain", "--resume", tmp_path / "run", "--optimization.epochs", "2").code == 0


def test_a_run_of_some_minutes_has_the_epochs_that_they_hold(
    photos: Path, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pace, "SECONDS", 0.0)
    run = tmp_path / "run"
    found = mae_kit.pretrain(str(recipes / "pretrain.yaml"), data=str(photos), run=str(run), minutes=0.001)
    recipe = yaml.safe_load((run / "config.yaml").read_text())["optimization"]
    assert found["steps"] == max(1, round(recipe["epochs"] * 96 / 16)) and recipe["warmup_epochs"] <= recipe["epochs"]
    assert mae_kit.pretrain(resume=str(run))["steps"] == found["steps"]
    assert yaml.safe_load((run / "config.yaml").read_text())["optimization"] == recipe


@pytest.mark.parametrize(("now", "level"), [(0.75, logging.INFO), (0.25, logging.WARNING)])
def test_the_end_tells_what_frozen_features_have_gained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, now: float, level: int
):
    rows = [{"step": 0, "knn_top1": 0.25}, {"step": 5, "loss": 1.0}]
    rows += [{"step": 9, "knn_top1": now, "knn_images": 48}]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with caplog.at_level(logging.INFO):
        _tell(tmp_path)
    (record,) = caplog.records
    assert record.levelno == level and f"{now:.1%} on 48 images, 25.0% before" in record.message


def test_several_masks_of_an_image_are_of_one_step(recipes: Path, photos: Path, tmp_path: Path):
    options: dict[str, Any] = {"data": str(photos), "epochs": 1, "optimization.warmup_epochs": 0}
    once, twice = (
        mae_kit.pretrain(str(recipes / "pretrain.yaml"), run=str(tmp_path / f"{n}"), **options, **{"data.masks": n})
        for n in (1, 2)
    )
    assert once["steps"] == twice["steps"] and once["loss"] != twice["loss"]
    assert once["audit_keys"] == twice["audit_keys"] == twice["audit_expected"]
