"""Classes of the user's images: all of them, a batch in memory at a time."""

import csv
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
from support.errors import raises
from support.photo_shards import jpeg, write_shard
from support.tiny_models import ARGS, MEAN, STD, tiny_classifier

import mae_kit
from mae_kit.data.loading import images
from mae_kit.tasks import classes, trained
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import save_classifier


@pytest.fixture
def run(tmp_path: Path) -> Path:
    args = {**ARGS, "global_pool": "avg"}
    config = ModelConfig("vit_base_patch16_224", args, MEAN, STD, image_size=(32, 32), classes=[*"abcde"])
    save_classifier(tmp_path, tiny_classifier(), config)
    return tmp_path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten, and one that does not decode."""
    (tmp_path / "photos").mkdir()
    for number in range(10):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(jpeg(number))
    (tmp_path / "photos" / "3a.jpg").write_bytes(b"<html>")
    return tmp_path / "photos"


@pytest.mark.slow
def test_all_images_of_all_sources_in_batches_as_alone(run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    write_shard(run / "a.tar", range(3))
    alone = [mae_kit.predict(run, [photos / f"{number}.jpg"])["predictions"][0] for number in range(10)]
    monkeypatch.setattr(trained, "BATCH", 4)
    found = mae_kit.predict(run, [photos, run / "a.tar"])["predictions"]
    assert [line["image"] for line in found] == [*(f"{photos}/{number}.jpg" for number in range(10)), *_keys(3)]
    for one, same in zip(alone, found, strict=False):
        assert one["image"] == same["image"] and one["classes"] == pytest.approx(same["classes"], abs=1e-5)
    assert inspect.signature(mae_kit.predict).parameters["limit"].default is None
    assert len(mae_kit.predict(run, [photos, run / "a.tar"], limit=2)["predictions"]) == 4


def _keys(count: int) -> list[str]:
    return [f"{number:04d}" for number in range(count)]


def test_a_batch_is_told_before_the_next_is_read(run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[int] = []
    told: list[int] = []
    decode = images.decode_on_scale
    monkeypatch.setattr(images, "decode_on_scale", lambda *given, **more: (decode(*given, **more), read.append(1))[0])
    monkeypatch.setattr(classes.log, "info", lambda line: told.append(len(read)))
    monkeypatch.setattr(trained, "BATCH", 4)
    mae_kit.predict(run, [photos])
    assert told == [4] * 4 + [8] * 4 + [10] * 2


@pytest.mark.parametrize(
    ("words", "key"), [(["--limit", "0"], "limit"), (["--top", "0"], "top"), (["--top", "-1"], "top")]
)
def test_numbers_that_count_nothing(run: Path, photos: Path, words: list[str], key: str, mistake: Callable[..., str]):
    assert mistake("predict", run, photos, *words) == key


def test_a_table_of_predictions(run: Path, photos: Path, tmp_path: Path):
    found = mae_kit.predict(run, [photos / "0.jpg", photos / "1.jpg"], top=2, out=tmp_path / "new" / "found.csv")
    with Path(found["out"]).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "class_1", "probability_1", "class_2", "probability_2"]
    for row, one in zip(rows, found["predictions"], strict=True):
        assert row["image"] == one["image"] and row["class_1"] == next(iter(one["classes"]))
        assert float(row["probability_2"]) == pytest.approx(one["classes"][row["class_2"]], rel=1e-4)
    with raises("out"):
        mae_kit.predict(run, [photos], out=tmp_path / "found.txt")


def test_predicted_classes_of_a_multi_label_classifier_are_marked():
    assert classes._line({"cat": 0.5, "dog": 0.2}, multi_label=True) == "cat 50.0%*, dog 20.0%"
    assert classes._line({"cat": 0.5, "dog": 0.2}, multi_label=False) == "cat 50.0%, dog 20.0%"
