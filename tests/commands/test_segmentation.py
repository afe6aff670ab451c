"""Segmentation from drawn shapes to predicted masks: packed, trained, stopped and resumed, predicted, reported."""
# Also tests tasks/masks.py.

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.errors import raises
from support.pages import DRAW
from support.shapes import NAMES, shapes, write_shapes

import mae_kit as mk
from mae_kit.evaluation.metrics import Counts
from mae_kit.tasks.segmenter import load_segmenter

RECIPE = """
model: {name: vit_tiny_patch16_224, args: {patch_size: 8, embed_dim: 48, depth: 2, num_heads: 2}}
task: {class_path: mae_kit.tasks.segmentation.Segmentation, init_args: {width: 32, dice: 0.5, scale: [0.8, 1.5]}}
data: {batch_size: 4, image_size: 32}
augmentation: {smoothing: 0.0, color_jitter: 0.1}
optimization: {epochs: 30, warmup_epochs: 2, learning_rate: 3.0e-3, clip: 1.0}
intervals: {log_every_n_steps: 10, checkpoint_every_n_steps: 20, eval_every_n_steps: 1000}
machine: {num_workers: 0, precision: fp32}
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shapes with masks; not to be changed."""
    folder = tmp_path_factory.mktemp("shapes")
    mk.shard(str(write_shapes(folder / "in")), folder / "out", workers=1)
    return folder / "out"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "segment.yaml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def run(shards: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a whole page; not to be changed."""
    run = tmp_path_factory.mktemp("segmenter") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DRAW, "1")
        mk.finetune(recipe, data=str(shards), run=run)
    return run


def test_shapes_are_found(run: Path):
    result = json.loads((run / "result.json").read_text())
    assert result["miou"] > 0.7 and result["pixel_accuracy"] > 0.9 and result["samples"] == 4
    assert [row["name"] for row in result["iou_of_classes"]] == NAMES


def test_predicted_masks_are_those_of_the_image(run: Path, tmp_path: Path):
    image, truth = shapes(99, (70, 45))
    Image.fromarray(image).save(tmp_path / "new.png")
    told = mk.predict(run, [tmp_path / "new.png"], out=tmp_path / "out")["predictions"][0]
    with Image.open(told["mask"]) as mask, Image.open(told["overlay"]) as overlay:
        found, width = np.array(mask), overlay.width
    confusion = np.bincount(3 * truth.ravel() + found.ravel(), minlength=9).reshape(3, 3)
    assert found.shape == truth.shape and (Counts.of_confusion(confusion).recall() > 0.6).all()
    assert sum(told["classes"].values()) == pytest.approx(1)
    assert width == 2 * 70 + 4


def test_a_segmenter_is_scored_on_other_shards(run: Path, shards: Path, photos: Path):
    (found,) = mk.evaluate(run, data=str(shards))["scores"]
    result = json.loads((run / "result.json").read_text())
    assert found["method"] == "segmenter" and found["miou"] == pytest.approx(result["miou"])
    assert found["low"] <= found["miou"] <= found["high"] and [row["name"] for row in found["of_classes"]] == NAMES
    with raises("data.masks.of_model"):
        mk.evaluate(run, data=str(photos))


def test_a_graph_gives_the_logits_of_a_window(run: Path, tmp_path: Path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    mk.export(run, tmp_path / "out", format="onnx")
    session = runtime.InferenceSession(tmp_path / "out" / "model.onnx")
    segmenter, record = load_segmenter(run)
    for batch in (1, 3):
        images = torch.randn(batch, 3, *record.model.size)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), segmenter(images), rtol=1e-4, atol=1e-4)
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    assert about["classes"] == NAMES and about["overlap"] == record.overlap
    with raises("format.task"):
        mk.export(run, tmp_path / "timm")


def test_the_page_shows_predictions_beside_the_truth(run: Path):
    page = (run / "report.html").read_text()
    assert all(name in page for name in NAMES) and len(list((run / "predictions").glob("*.png"))) == 4
    assert page.count("data:image/png") >= 4


def test_a_run_that_was_stopped_ends_as_one_that_was_not(run: Path, tmp_path: Path):
    """Crops, flips and colors are functions of the samples."""
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(max((tmp_path / "run" / "checkpoints").iterdir()))
    for name in ("complete.json", "segmenter.safetensors", "result.json"):
        (tmp_path / "run" / name).unlink()
    mk.finetune(resume=tmp_path / "run")
    whole, parts = (load_segmenter(each)[0].state_dict() for each in (run, tmp_path / "run"))
    assert all((whole[name] == parts[name]).all() for name in whole)


def test_an_encoder_is_the_backbone(shards: Path, recipe: Path, tmp_path: Path, trained: Path):
    told = mk.finetune(recipe, data=str(shards), encoder=str(trained), model=None, run=tmp_path / "run", epochs=1)
    assert 0 <= told["miou"] <= 1
    assert load_segmenter(tmp_path / "run")[1].model.objective == "MAE"


def test_pretraining_is_compared_with_scratch(shards: Path, recipe: Path, tmp_path: Path, trained: Path):
    how: dict = {"encoder": str(trained), "model": None, "epochs": 1, "against_scratch": True}
    told = mk.finetune(recipe, data=str(shards), run=tmp_path / "run", **how)
    ours, scratch = (json.loads((tmp_path / "run" / each / "result.json").read_text()) for each in (".", "scratch"))
    assert told["gain"]["mean"] == pytest.approx(ours["miou"] - scratch["miou"])
    assert told["verdict"] in (tmp_path / "run" / "report.html").read_text()


def test_the_best_weights_are_kept_of_an_average_and_training_ends(shards: Path, recipe: Path, tmp_path: Path):
    how: dict = {"intervals.eval_every_n_steps": 3, "machine.accumulate_grad_batches": "auto"}
    told = mk.finetune(recipe, data=str(shards), run=tmp_path / "run", ema=0.9, patience=1, **how)
    assert told["best"]["metric"] == "val_miou" and told["best"]["step"] + 3 <= 90
    steps = json.loads((tmp_path / "run" / "complete.json").read_text())["steps"]
    assert steps == min(90, told["best"]["step"] + 3)
    (found,) = mk.evaluate(tmp_path / "run" / "best", data=str(shards))["scores"]
    assert found["miou"] == pytest.approx(told["best"]["value"])


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("data.crop_pct", {"data.crop_pct": 0.5}),
        ("augmentation.mixup", {"augmentation.mixup": 0.8}),
        ("generative", {"generative": 1.0}),
    ],
)
def test_settings_of_classification_are_refused(key: str, given: dict, shards: Path, recipe: Path, tmp_path: Path):
    with raises(key):
        mk.finetune(recipe, data=str(shards), run=tmp_path / "run", dry_run=True, **given)
    assert not (tmp_path / "run").exists()


def test_images_without_masks_are_refused(photos: Path, recipe: Path, tmp_path: Path):
    with raises("data.masks"):
        mk.finetune(recipe, data=str(photos), run=tmp_path / "run")
