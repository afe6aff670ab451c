# Also tests data/loading/boxes.py, tasks/boxes.py, tasks/box_pictures.py, tasks/files.py, tasks/detector.py.
"""Detection from boxes to a page: both detectors learn, are scored, saved, loaded, asked and exported."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from support.boxed_folders import NAMES, some_boxes, write_coco
from support.errors import raises

from mae_kit.commands.evaluate import evaluate
from mae_kit.commands.export import export
from mae_kit.commands.finetune import finetune
from mae_kit.commands.predict import predict
from mae_kit.commands.shard import shard
from mae_kit.data.index.boxes import Objects
from mae_kit.data.index.open import open_index
from mae_kit.data.loading.boxes import BoxedBatches, BoxedTrainBatches, fitted
from mae_kit.encoders import ViT
from mae_kit.encoders.timm_models import build
from mae_kit.tasks.classifier import ModelSpec
from mae_kit.tasks.config import Augmentation, FinetuneData
from mae_kit.tasks.detection import Detection
from mae_kit.tasks.detector import Detections, detections, load_detector
from mae_kit.tasks.detr import Detr
from mae_kit.tasks.set_criterion import Found
from mae_kit.training.config import Intervals, Machine, Optimization

SIZE = [32, 48]
DETECTORS = {
    "yolos": (ModelSpec("vit_tiny_patch16_224", {"patch_size": 8, "depth": 2}), Detection("yolos", queries=6)),
    "detr": (
        ModelSpec("resnet18", {"channels": [8, 16, 16, 16], "layers": [1, 1, 1, 1]}),
        Detection("detr", 6, layers=(1, 2), width=32, heads=4, feedforward=32, stride=8),
    ),
    "proposals": (
        ModelSpec("resnet18", {"channels": [16, 32, 32, 32], "layers": [1, 1, 1, 1]}),
        Detection("detr", 6, True, layers=(1, 2), width=64, heads=4, feedforward=64, dropout=0.0, stride=8),
    ),
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("boxes")
    images = {f"{split}/{number}.png": some_boxes(number) for split in ("train", "val") for number in range(24)}
    write_coco(root / "in", images)
    shard(str(root / "in"), root / "shards", workers=1)
    return root / "shards"


def train(shards: Path, run: Path, kind: str, epochs: float = 1.0, **more) -> dict:
    model, task = DETECTORS[kind]
    return finetune(
        FinetuneData(str(shards), 8, SIZE),
        Optimization(epochs=epochs, learning_rate=1e-3, warmup_epochs=0.5),
        run,
        model=model,
        task=task,
        intervals=Intervals(2, 100, 1000),
        machine=Machine(num_workers=0, precision="fp32"),
        **more,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", DETECTORS)
def test_from_boxes_to_a_page(shards: Path, tmp_path: Path, kind: str):
    run = tmp_path / "run"
    result = train(shards, run, kind)
    assert 0 <= result["map"] <= result["map50"] <= 1 and result["samples"] == 24
    record = json.loads((run / "result.json").read_text())
    assert [row["name"] for row in record["ap_of_classes"]] == NAMES
    assert [row["objects"] for row in record["ap_of_classes"]] == [24, 12]
    page = (run / "report.html").read_text()
    assert "Class by class" in page and "Attention of the queries" in page
    for folder in ("predictions", "attention"):
        assert len(list((run / folder).glob("*.png"))) == 6

    scored = evaluate(run, data=shards)["scores"][0]
    assert scored["map50"] == pytest.approx(result["map50"], abs=1e-4) and scored["low"] <= scored["high"]

    images = tmp_path / "new"
    images.mkdir()
    Image.fromarray(np.zeros((60, 40, 3), np.uint8)).save(images / "tall.png")
    told = predict(run, [images], out=tmp_path / "found")
    assert Path(told["predictions"][0]["picture"]).is_file()
    coco = json.loads((tmp_path / "found/detections.json").read_text())
    assert coco["images"] == [{"id": 1, "file_name": str(images / "tall.png"), "width": 40, "height": 60}]
    for row in coco["annotations"]:
        x, y, width, height = row["bbox"]
        assert 0 <= x <= x + width <= 40.01 and 0 <= y <= y + height <= 60.01 and row["category_id"] in (1, 2)

    onnxruntime = pytest.importorskip("onnxruntime")
    export(run, tmp_path / "onnx", format="onnx")
    session = onnxruntime.InferenceSession(tmp_path / "onnx/model.onnx")
    model, _ = load_detector(run)
    shown = torch.randn(3, 3, *SIZE)
    (out,) = session.run(None, {"images": shown.numpy()})
    with torch.no_grad():
        (found,) = model(shown)[-1:]
    assert out.shape == (3, found.boxes.shape[1], 6)
    best = detections(model, found, (SIZE[0], SIZE[1]))[0]
    row = int(out[0, :, 4:].max(axis=1).argmax())
    np.testing.assert_allclose(out[0, row, :4], best.boxes[0].numpy(), atol=1e-2)


@pytest.mark.long
def test_a_detector_learns(shards: Path, tmp_path: Path):
    result = train(shards, tmp_path / "run", "proposals", epochs=60)
    assert result["map50"] > 0.3


@pytest.mark.slow
def test_a_run_resumes_and_a_complete_one_answers(shards: Path, tmp_path: Path):
    once = train(shards, tmp_path / "run", "yolos")
    assert train(shards, tmp_path / "run", "yolos", resume=True)["map50"] == once["map50"]


def test_batches_hold_images_and_boxes_of_one_size(shards: Path):
    index = open_index(shards / "train-*.tar")
    batch = BoxedTrainBatches(index, index.boxed(), 4, (64, 64), seed=1)[0]
    assert batch.images.shape == (4, 3, 64, 64) and batch.sizes is not None
    assert (batch.sizes == torch.tensor([43, 64])).all()
    for image, boxes in zip(batch.images, batch.labels, strict=True):
        for left, top, right, bottom, label, _ in boxes[boxes[:, 4] >= 0].tolist():
            x, y = int((left + right) / 2), int((top + bottom) / 2)
            assert image[2 if label else 0, y, x] > 150
    whole = list(BoxedBatches(index, index.boxed(), 10, (64, 64)))
    assert [len(one.images) for one in whole] == [10, 10, 4]
    assert torch.equal(BoxedTrainBatches(index, index.boxed(), 4, (64, 64), seed=1)[0].labels, batch.labels)


def test_images_are_fitted_and_boxes_with_them():
    image = torch.zeros(3, 50, 100, dtype=torch.uint8)
    pixels, boxes = fitted(image, Objects.of([[10, 10, 50, 50]], [1], [1]), (20, 20))
    assert pixels.shape == (3, 10, 20)
    np.testing.assert_allclose(boxes, [[2, 2, 10, 10, 1, 1]])


def test_detections_are_sorted_and_in_pixels():
    model = Detr(build("resnet18", {"channels": [8] * 4}, "", num_classes=0), 2, 3, 32, 4, (1, 1), 32, stride=8)
    logits = torch.tensor([[[0.0, 0, 9], [5, 0, 0], [0, 9, 0]]])
    boxes = torch.tensor([[[0.5, 0.5, 1, 1], [0.25, 0.5, 0.5, 1.0], [0.5, 0.5, 0.2, 4.0]]])
    (found,) = detections(model, Found(logits, boxes), (10, 20))
    assert found.classes.tolist() == [1, 0, 0] and found.scores.diff().le(0).all()
    np.testing.assert_allclose(found.boxes[:2], [[8, 0, 12, 10], [0, 0, 10, 10]], atol=1e-5)
    assert len(found.above(0.9).scores) == 2 and isinstance(found, Detections)


def test_images_with_more_objects_than_queries_are_told(shards: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path):
    model, _ = DETECTORS["yolos"]
    data = FinetuneData(str(shards), 8, SIZE)
    finetune(
        data,
        Optimization(epochs=1, learning_rate=1e-3),
        tmp_path / "run",
        model=model,
        task=Detection("yolos", 1),
        dry_run=True,
    )
    assert "12 of 24 training images show more objects" in caplog.text


def test_what_cannot_work_is_refused(shards: Path, tmp_path: Path):
    with raises("task.scale"):
        Detection(scale=(2.0, 1.0))
    with raises("task.width.heads"):
        Detection(width=100)
    with raises("task.queries"):
        Detection(queries=0)
    with raises("task.detector.yolos"):
        Detection("yolos").model(FinetuneData("", 1, 32), None, ModelSpec("resnet18", {}), ["a"], 0.0)
    with raises("task.stride"):
        Detection(stride=1).model(FinetuneData("", 1, 32), None, ModelSpec("resnet18", {}), ["a"], 0.0)
    model, task = DETECTORS["yolos"]
    with raises("augmentation.mixup"):
        mixed = Augmentation(mixup=0.5)
        finetune(
            FinetuneData(str(shards), 8, SIZE),
            Optimization(1),
            tmp_path / "r",
            model=model,
            task=task,
            augmentation=mixed,
        )


def test_a_fraction_of_the_images_with_boxes_is_trained_on(shards: Path):
    data = FinetuneData(str(shards), 8, SIZE, labels_fraction=0.5)
    labeled = Detection().open(data, Optimization(1, learning_rate=1e-3), Machine(), seed=0)
    assert len(labeled.stream.rows) == 12 and len(labeled.val.boxed()) == 24


@pytest.mark.long
@pytest.mark.usefixtures("forked")
def test_a_detector_on_a_frozen_encoder(shards: Path, tmp_path: Path):
    """As `evaluate --attentive` trains it where images have boxes alone."""
    torch.manual_seed(0)
    vit = ViT("vit_tiny_patch16_224", img_size=SIZE, patch_size=8, embed_dim=48, depth=2, num_heads=2)
    vit.set_statistics([0.2] * 3, [0.3] * 3)
    vit.save_pretrained(tmp_path / "vit")
    with raises("methods.boxes"):
        evaluate(tmp_path / "vit", data=shards)
    parts = {"detector": "detr", "queries": 6, "layers": [0, 1], "width": 32, "heads": 4, "feedforward": 32}
    recipe = {
        "model": {"name": "vit_tiny_patch16_224"},
        "task": {"class_path": "mae_kit.tasks.detection.Detection", "init_args": parts | {"proposals": True}},
        "data": {"batch_size": 8, "image_size": SIZE},
        "optimization": {"epochs": 1, "learning_rate": 1e-3},
        "machine": {"num_workers": 0, "precision": "fp32"},
    }
    (tmp_path / "probe.yaml").write_text(yaml.safe_dump(recipe))
    told = evaluate(tmp_path / "vit", data=shards, attentive=str(tmp_path / "probe.yaml"), out=tmp_path / "out")
    assert told["failed"] == 0 and told["trained"][0]["method"] == "attentive" and 0 <= told["trained"][0]["map50"] <= 1
    (run,) = (file for file in (tmp_path / "out/evaluation").glob("attentive-*") if file.is_dir())
    inside = load_detector(run)[0].backbone.state_dict()
    for name, tensor in vit.model.state_dict().items():
        assert torch.equal(inside[name], tensor)


def test_shards_without_boxes_are_refused(tmp_path: Path):
    for split in ("train", "val"):
        (tmp_path / "in" / split).mkdir(parents=True)
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "in" / split / f"{split}.png")
    shard(str(tmp_path / "in"), tmp_path / "shards", workers=1)
    with raises("data.boxes"):
        train(tmp_path / "shards", tmp_path / "run", "yolos")
