"""The verb `finetune`: from scratch and from an encoder, killed and resumed, and its users' mistakes."""
# Also tests tasks/module.py, tasks/supervised.py, tasks/classification.py, tasks/classes.py, tasks/load.py,
# tasks/trained.py.

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from support.pages import DRAW
from support.photo_shards import CLASSES, classes_of, write_shard
from support.processes import Programs
from support.runs import SLOW_SCORES, Words, curve, group, resume_until_done, same, scored
from torch import nn

from mae_kit.data.loading.batch import Batch
from mae_kit.tasks.classifier import build_classifier
from mae_kit.tasks.config import Augmentation
from mae_kit.tasks.module import FinetuneModule
from mae_kit.tasks.supervised import ema_decay
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import load_classifier, save_encoder
from mae_kit.weights.recognize import load_encoder


@pytest.fixture(scope="module")
def words(photos: Path, recipes: Path) -> Words:
    shards = ["--data.path", photos / "train-*.tar", "--data.val", photos / "val-*.tar"]
    return ["finetune", "--config", recipes / "finetune.yaml", *shards]


@pytest.fixture(scope="module")
def tuned(programs: Programs, words: Words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From scratch, with everything on that draws: drop path, mixing, erasing, colors; and a moving average."""
    run = tmp_path_factory.mktemp("tuned") / "run"
    ended = programs.run(*words, "--run", run, **{DRAW: 1})
    assert ended.code == 0, ended.err
    return run


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def scores(run: Path) -> dict[str, Any]:
    return {name: result(run)[name] for name in ("top1", "samples", "per_class", "confusion", "step", "loss")}


@pytest.mark.slow
def test_what_a_run_leaves(tuned: Path):
    names = {path.name for path in tuned.iterdir()}
    assert names >= {"config.yaml", "metrics.jsonl", "classifier.safetensors", "result.json", "report.html"}
    found = result(tuned)
    assert found["samples"] == 32 and found["classes"] == list(CLASSES)
    assert 0 <= found["top1"] <= 1 and "top5" not in found, "top-5 of four classes says nothing"
    assert sum(map(sum, found["confusion"])) == 32 and set(found["per_class"]) == set(CLASSES)


@pytest.mark.long
@pytest.mark.parametrize("workers", ["0", "2"])
def test_killed_at_any_moment_it_resumes_bit_by_bit(
    programs: Programs, words: Words, tuned: Path, tmp_path: Path, workers: str
):
    run, dice = tmp_path / "run", random.Random(int(workers))
    kills = resume_until_done(programs, run, "finetune", [*words, "--machine.num_workers", workers], dice)
    assert kills >= 2
    assert same(run, tuned, "classifier.safetensors") and scores(run) == scores(tuned)


@pytest.mark.slow
def test_a_complete_run_is_left_as_it_is(programs: Programs, tuned: Path, tmp_path: Path):
    run = shutil.copytree(tuned, tmp_path / "run")
    ended = programs.run("finetune", "--resume", run, "--json")
    assert ended.code == 0 and "is complete: it has trained for 18 of 18 steps" in ended.err
    assert json.loads(ended.out)["top1"] == result(tuned)["top1"]
    write_shard(tmp_path / "val.tar", range(8))
    ended = programs.run("finetune", "--resume", run, "--data.val", tmp_path / "val.tar")
    assert (ended.code, ended.key) == (2, "finetune.of")
    assert (run / "metrics.jsonl").read_bytes() == (tuned / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_killed_while_it_was_scored_it_repeats_the_last_steps(programs: Programs, tuned: Path, tmp_path: Path):
    run = shutil.copytree(tuned, tmp_path / "run")
    (run / "result.json").unlink()
    (run / "classifier.safetensors").unlink()
    ended = programs.run("finetune", "--resume", run)
    assert ended.code == 0 and "resuming after step 15" in ended.out, ended.err
    assert same(run, tuned, "classifier.safetensors") and scores(run) == scores(tuned)


@pytest.mark.long
@pytest.mark.parametrize("at", [12, 18])
@pytest.mark.gate("R8")
def test_a_signal_ends_a_score_and_the_resumed_run_makes_up_for_it(
    programs: Programs, words: Words, tuned: Path, tmp_path: Path, at: int
):
    run = tmp_path / "run"
    often = ["--intervals.eval_every_n_steps", "12"] if at == 12 else []
    running = programs.start(*words, "--run", run, *often, patch=SLOW_SCORES)
    running.wait_until(lambda: (run / "metrics.jsonl").exists() and at in [step for step, *_ in curve(run)])
    time.sleep(1)
    running.send(signal.SIGTERM)
    ended = running.wait()
    assert ended.code == 143 and f"stopped by a signal after step {at}" in ended.out, ended
    assert not (run / "result.json").exists()
    assert programs.run("finetune", "--resume", run).code == 0
    assert same(run, tuned, "classifier.safetensors") and scores(run) == scores(tuned)
    assert [step for step, _ in scored(run, "val_top1")] == sorted({at, 18})
    assert scored(run, "val_top1")[-1] == scored(tuned, "val_top1")[-1]


@pytest.mark.long
def test_two_processes_score_every_sample_once(programs: Programs, words: Words, tmp_path: Path):
    run = tmp_path / "run"
    ended = [rank.wait() for rank in group(programs, 2, *words, "--run", run)]
    assert [end.code for end in ended] == [0, 0], ended
    assert result(run)["samples"] == 32 and [step for step, *_ in curve(run)] == [3, 6, 9, 12, 15, 18]


@pytest.mark.slow
def test_an_encoder_is_tuned_and_predicts(
    programs: Programs, words: Words, photos: Path, trained: Path, tmp_path: Path
):
    run = tmp_path / "run"
    plain = ["--model", "null", "--augmentation.mixup", "0", "--augmentation.cutmix", "0", "--ema", "null"]
    longer = ["--optimization.epochs", "12", "--drop_path", "0", "--augmentation.flip", "false"]
    ended = programs.run(*words, "--run", run, "--encoder", trained, *plain, *longer)
    assert ended.code == 0, ended.err
    assert "newly initialized: fc_norm.bias, fc_norm.weight, head.bias, head.weight" in ended.out
    assert result(run)["top1"] > 0.4, "chance is a quarter"
    predicted = programs.run("predict", run, photos / "val-0.tar", "--top", "1", "--json")
    answers = json.loads(predicted.out)["predictions"]
    right = [CLASSES[int(answer["image"]) % 4] in answer["classes"] for answer in answers]
    assert sum(right) / len(right) == pytest.approx(result(run)["top1"])


@pytest.mark.slow
def test_what_is_frozen_is_the_encoders_bit_by_bit_also_after_a_resume(
    programs: Programs, words: Words, tmp_path: Path
):
    """The last block learns and attention pools; with drop path, mixing and a moving average."""
    args: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    encoder = timm.create_model("vit_tiny_patch16_224", num_classes=0, **args).state_dict()
    config = ModelConfig("vit_tiny_patch16_224", args, [0.4, 0.5, 0.6], [0.2, 0.2, 0.3], "mae", 7)
    save_encoder(tmp_path, dict(encoder), config)
    run, partial = tmp_path / "run", ["--model.args", "{global_pool: map}", "--blocks", "1"]
    ended = programs.run(*words, "--encoder", tmp_path, *partial, "--run", run)
    assert ended.code == 0 and "newly initialized: attn_pool.kv.bias" in ended.out, ended.err
    trained = load_file(run / "classifier.safetensors")
    kept = {name: torch.equal(trained[name], encoder[name]) for name in encoder}
    assert kept == {name: not name.startswith(("blocks.1.", "norm.")) for name in encoder}
    before = (run / "classifier.safetensors").read_bytes()
    (run / "result.json").unlink()
    assert "resuming after step 15" in programs.run("finetune", "--resume", run).out
    assert (run / "classifier.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ("--data.path {unlabeled}", "data.classes.no_labels"),
        ("--data.val {unlabeled}", "data.classes.no_labels"),
        ("--data.val nowhere", "data.path.missing"),
        ("--data.path {others} --data.val {others}", "data.val"),
        ("--data.labels_per_class 2 --machine.accumulate_grad_batches 16", "data.batch_size.devices"),
        ("--data.labels_per_class 25", "data.labels_per_class.too_many"),
        ("--data.path {sets} --data.val {others} --data.labels_per_class 2", "data.labels_per_class.several"),
        ("--data.path {sets}", "data.classes.columns"),
        ("--data.image_size 30", "encoder.img_size.patch"),
        ("--encoder {file}", "weights.damaged.pickle"),
        ("--encoder {empty}", "encoder.missing"),
        ("--model null", "model.name.missing"),
        ("--model.name vit_tinny", "model.name.unknown"),
        ("--blocks 3", "blocks.count"),
        ("--augmentation.randaugment 9 --data.mean [0.5] --data.std [0.25]", "randaugment"),
        ("--data.mean [0.5]", "data.mean.one"),
        ("--data.std [0.2,0,0.2]", "data.std"),
        ("--data.crop_scale [0.5,2]", "data.crop_scale"),
        ("--optimization.betas [1.0,0.9]", "optimization.betas"),
        ("--machine.accumulate_grad_batches 16 --augmentation.mixup 1", "augmentation.mixup.one_image"),
        ("--drop_path 1.5", "drop_path"),
        ("--ema 1", "ema"),
        ("--data.std [58,57,57]", "data.std"),
        ("--data.crop_pct 1.1", "data.crop_pct"),
        ('--model.name convnext_atto --model.args {{"depths":[1,1],"dims":[8,8]}}', "encoder.model_args.refused"),
        ("--run {file}/run", "run.start"),
        ("--resume {empty} --run {empty}", "resume.config"),
    ],
)
def test_mistakes_are_told_in_one_line_and_leave_nothing(
    words: Words, tmp_path: Path, mistake: Callable[..., str], changed: str, key: str
):
    (tmp_path / "file").write_text("")
    for name in ("empty", "unlabeled", "sets", "others"):
        (tmp_path / name).mkdir()
    for name in ("sets", "others"):
        write_shard(tmp_path / name / "a.tar", range(8), sets=True)
        (tmp_path / name / "classes.txt").write_text("\n".join(CLASSES))
    write_shard(tmp_path / "unlabeled" / "a.tar", range(8), labels=False)
    folders = {name: tmp_path / name for name in ("file", "empty", "sets", "others", "unlabeled")}
    assert mistake(*words, "--run", tmp_path / "run", *changed.format(**folders).split()) == key
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "others", "sets", "unlabeled"]


def test_a_moving_average_of_what_does_not_move_is_the_model(tmp_path: Path):
    model = nn.BatchNorm1d(2)
    model.register_buffer("index", torch.arange(1000), persistent=False)
    module = FinetuneModule(model, 4, lr=1.0, mean=[0.5], std=[0.5], ema=0.9999)
    for _ in range(3):
        module.average.update_parameters(model)  # type: ignore[union-attr]
    tensors = zip(module.scored().named_buffers(), model.named_buffers(), strict=True)
    assert all(torch.equal(mean, value) for (_, mean), (_, value) in tensors)


def test_the_average_of_a_short_run_has_left_its_start():
    """A decay of .9999 alone would leave 99% of where it began after 120 steps."""
    model = nn.Linear(1, 1, bias=False)
    module = FinetuneModule(model, 4, lr=1.0, mean=[0.5], std=[0.5], ema=0.9999)
    with torch.no_grad():
        model.weight.fill_(0.0)
        module.average.update_parameters(model)  # type: ignore[union-attr]
        model.weight.fill_(1.0)
        for _ in range(119):
            module.average.update_parameters(model)  # type: ignore[union-attr]
    assert float(module.scored().weight.detach()) > 0.99  # type: ignore[arg-type,operator]
    assert [ema_decay(0.9, n) for n in (0, 8, 10**6)] == [0.1, 0.5, 0.9]


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_loss_asks_for_one_class_or_for_each(tmp_path: Path, multi_label: bool):
    plain = Augmentation(flip=False, smoothing=0.0)
    given: Any = {"mean": [0.5], "std": [0.5], "multi_label": multi_label, "augmentation": plain}
    module = FinetuneModule(nn.Flatten(), 4, lr=1.0, **given)
    single = torch.tensor([1, 3])
    sets = torch.tensor([[False, True, False, True], [False] * 4])
    labels = sets if multi_label else single
    keys = torch.zeros(2, dtype=torch.int64)
    images = torch.tensor([[0, 255, 0, 0], [255, 0, 0, 255]], dtype=torch.uint8).reshape(2, 1, 2, 2)
    found = module.loss(Batch(images, labels, keys, keys, keys, []))["loss"]
    logits = images.flatten(1) / 127.5 - 1
    if multi_label:
        expected = -torch.where(sets, logits.sigmoid(), 1 - logits.sigmoid()).log().mean()
    else:
        expected = -logits.log_softmax(dim=1)[range(2), single].mean()
    torch.testing.assert_close(found, expected)


@pytest.mark.long
def test_several_classes_an_image_are_learned_and_predicted(programs: Programs, recipes: Path, tmp_path: Path):
    for name, numbers in (("train", range(96)), ("val", range(1000, 1032))):
        write_shard(tmp_path / f"{name}.tar", numbers, sets=True)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    shards = ["--data.path", tmp_path / "train.tar", "--data.val", tmp_path / "val.tar"]
    plain = ["--augmentation.mixup", "0", "--augmentation.cutmix", "0", "--augmentation.flip", "false"]
    longer = ["--optimization.epochs", "10", "--drop_path", "0", "--optimization.layer_decay", "1", "--ema", "null"]
    run = tmp_path / "run"
    words = ["finetune", "--config", recipes / "finetune.yaml", *shards, *plain, *longer]
    ended = programs.run(*words, "--run", run, "--json")
    assert ended.code == 0, ended.err
    told, found = json.loads(ended.out), result(run)
    assert set(told) >= {"run", "map", "macro_f1", "samples"} and told["map"] == found["map"]
    assert [row["images"] for row in found["of_classes"]] == [0, 16, 8, 8] and found["of_classes"][0]["recall"] is None
    assert found["map"] > 0.6, "chance is a third"
    assert scored(run, "val_map")[-1][1] == found["map"]
    predicted = programs.run("predict", run, tmp_path / "val.tar", "--top", "4", "--json")
    said = {int(one["image"]): one["classes"] for one in json.loads(predicted.out)["predictions"]}
    dusk = [classes["dusk"] >= 0.5 for number, classes in said.items() if 1 in classes_of(number)]
    assert np.mean(dusk) == pytest.approx(found["of_classes"][1]["recall"])


@pytest.mark.slow
def test_a_mean_pooled_classifier_starts_another_fine_tuning(tuned: Path):
    """Its pooling and the norm after it are kept: the features before the new head are its own."""
    saved = load_classifier(tuned)
    encoder = load_encoder(tuned / "classifier.safetensors", any_family=True)
    model: Any = build_classifier(None, 3, encoder, 0.0, saved.config.size).model.eval()
    images = torch.randn(2, 3, *saved.config.size)
    models: list[Any] = [saved.model, model]
    before, after = (each.forward_head(each.forward_features(images), pre_logits=True) for each in models)
    torch.testing.assert_close(after, before)


@pytest.mark.slow
def test_a_pretraining_does_not_resume_as_a_fine_tuning(trained: Path, mistake: Callable[..., str]):
    assert mistake("finetune", "--resume", trained) == "resume.command"


@pytest.mark.long
def test_a_residual_network_with_a_moving_average(programs: Programs, words: Words, tmp_path: Path):
    """Batch norm has buffers, one of them a whole number; SGD has another state than AdamW."""
    model = ["--model.name", "test_resnet", "--model.args", "{}", "--optimization.optimizer", "sgd"]
    words = [*words, "--run", tmp_path / "run", *model, "--optimization.epochs", "1"]
    whole = programs.run(*words)
    assert whole.code == 0, whole.err
    words[words.index(tmp_path / "run")] = tmp_path / "stopped"
    resume_until_done(programs, tmp_path / "stopped", "finetune", words, random.Random(2))
    assert same(tmp_path / "run", tmp_path / "stopped", "classifier.safetensors")
