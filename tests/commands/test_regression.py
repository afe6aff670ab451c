"""Regression from counted squares to predicted numbers: packed, trained, resumed, scored, predicted, reported."""
# Also tests data/loading/targets.py, reports/numbers.py, tasks/numbers.py, tasks/regression.py, tasks/regressor.py.

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.errors import raises
from support.pages import DRAW

import mae_kit as mk
from mae_kit.data.index.open import open_index
from mae_kit.tasks.regressor import load_regressor

RECIPE = """
model: {name: vit_tiny_patch16_224, args: {patch_size: 8, embed_dim: 48, depth: 2, num_heads: 2}}
task: {class_path: mae_kit.tasks.regression.Regression, init_args: {loss: huber}}
data: {batch_size: 16, image_size: [32, 40]}
augmentation: {smoothing: 0.0}
optimization: {epochs: 30, warmup_epochs: 2, learning_rate: 2.0e-3, clip: 1.0}
intervals: {log_every_n_steps: 10, checkpoint_every_n_steps: 40, eval_every_n_steps: 1000}
machine: {num_workers: 0, precision: fp32}
"""


def discs(seed: int) -> tuple[np.ndarray, int]:
    """An image 40 x 32 of as many squares apart as is returned."""
    draw = np.random.default_rng(seed)
    image = draw.integers(0, 40, (32, 40, 3), np.uint8)
    places = draw.permutation(20)[: (count := int(draw.integers(0, 13)))]
    for place in places:
        y, x = 8 * (place // 5) + 2, 8 * (place % 5) + 2
        image[y : y + 5, x : x + 5] = 230
    return image, count


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Counted discs; not to be changed."""
    folder = tmp_path_factory.mktemp("discs")
    lines = ["file,discs,half"]
    for number in range(96):
        name = f"{'train' if number < 64 else 'val'}/{number}.png"
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        image, count = discs(number)
        Image.fromarray(image).save(folder / "in" / name)
        lines.append(f"{name},{count},{count / 2}")
    (folder / "table.csv").write_text("\n".join(lines))
    mk.shard(str(folder / "in"), folder / "out", labels=str(folder / "table.csv"), workers=1)
    return folder / "out"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "regress.yaml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def run(shards: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a whole page; not to be changed."""
    run = tmp_path_factory.mktemp("regressor") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DRAW, "1")
        mk.finetune(recipe, data=str(shards), run=run)
    return run


def test_discs_are_counted(run: Path, shards: Path):
    result = json.loads((run / "result.json").read_text())
    assert result["r2"] > 0.6 and result["samples"] == 32
    assert [row["name"] for row in result["of_numbers"]] == ["discs", "half"]
    assert result["of_numbers"][0]["mae"] > result["of_numbers"][1]["mae"]
    (found,) = mk.evaluate(run, data=str(shards))["scores"]
    assert found["method"] == "regressor" and found["r2"] == pytest.approx(result["r2"], abs=1e-5)


def test_numbers_stay_when_shards_are_packed_again(shards: Path, tmp_path: Path):
    mk.shard(str(shards), tmp_path / "out", workers=1)
    before, after = (open_index(folder) for folder in (shards, tmp_path / "out"))
    assert before.targets is not None and after.targets is not None
    totals = [index.targets.values.sum(axis=0).tolist() for index in (before, after) if index.targets]
    assert totals[0] == totals[1] and len(after.targeted()) == 96


def test_predictions_are_a_table(run: Path, tmp_path: Path):
    for number in (200, 201):
        Image.fromarray(discs(number)[0]).save(tmp_path / f"{number}.png")
    told = mk.predict(run, [tmp_path], out=tmp_path / "found.csv")
    with open(told["out"], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["image"]).stem for row in rows] == ["200", "201"]
    for row, one in zip(rows, told["predictions"], strict=True):
        assert float(row["discs"]) == pytest.approx(one["numbers"]["discs"], rel=1e-4)
        assert abs(float(row["discs"]) - discs(int(Path(row["image"]).stem))[1]) < 5


def test_the_page_shows_every_number(run: Path):
    page = (run / "report.html").read_text()
    assert "Mean absolute error" in page and "half" in page and "predicted" in page


def test_a_graph_gives_the_numbers(run: Path, tmp_path: Path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    mk.export(run, tmp_path / "out", format="onnx")
    images = torch.randn(3, 3, 32, 40)
    session = runtime.InferenceSession(tmp_path / "out" / "model.onnx")
    (numbers,) = session.run(["numbers"], {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(numbers), load_regressor(run)[0](images), rtol=1e-4, atol=1e-4)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(run: Path, tmp_path: Path):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(max((tmp_path / "run" / "checkpoints").iterdir()))
    for name in ("complete.json", "regressor.safetensors", "result.json"):
        (tmp_path / "run" / name).unlink()
    mk.finetune(resume=tmp_path / "run")
    whole, parts = (load_regressor(each)[0].state_dict() for each in (run, tmp_path / "run"))
    assert all((whole[name] == parts[name]).all() for name in whole)


def test_pretraining_is_compared_with_scratch(shards: Path, recipe: Path, tmp_path: Path, trained: Path):
    how: dict = {"encoder": str(trained), "model": None, "epochs": 1, "against_scratch": True}
    told = mk.finetune(recipe, data=str(shards), run=tmp_path / "run", **how)
    ours, scratch = (json.loads((tmp_path / "run" / each / "result.json").read_text()) for each in (".", "scratch"))
    assert told["gain"]["mean"] == pytest.approx(ours["r2"] - scratch["r2"], abs=1e-5)


def test_what_has_no_effect_or_no_numbers_is_refused(shards: Path, photos: Path, recipe: Path, tmp_path: Path):
    with raises("data.crop_scale"):
        mk.finetune(recipe, data=str(shards), run=tmp_path / "run", **{"data.crop_scale": [0.5, 1.0]})
    with raises("augmentation.mixup"):
        mk.finetune(recipe, data=str(shards), run=tmp_path / "run", **{"augmentation.mixup": 0.5})
    with raises("data.targets"):
        mk.finetune(recipe, data=str(photos), run=tmp_path / "run")
