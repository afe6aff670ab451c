"""Labels of other libraries: classes, texts, integers, lists, and rows without any."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.errors import raises

from mae_kit.commands.shard import shard
from mae_kit.data.packing.hubs import RowReader, _number
from mae_kit.errors import BadImage


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        ([1, 0, None, -1], ["a", "b"], [(1,), (0,), None, None]),
        (["cat", "ant", None], None, [(1,), (0,), None]),
        ([3, 0], None, [(3,), (0,)]),
        ([["b", "a"], ["b"], [], None], None, [(0, 1), (1,), (), None]),
        ([[0, 1, 0], [1, 1, 0], [0, 0, 0]], None, [(1,), (0, 1), ()]),
        ([1.0, 0.0, None, float("nan")], None, [(1,), (0,), None, None]),
        (["b", "", "a"], None, [(1,), None, (0,)]),
        ([[2, 0], [1]], ["a", "b", "c"], [(0, 2), (1,)]),
    ],
)
def test_labels(values: list[Any], names: list[str] | None, expected: list[Any]):
    found = _number(values, names)
    assert found.classes == expected
    assert found.several == any(isinstance(value, list) for value in values)


@pytest.mark.parametrize("row", [None, (None, 3), {"bytes": None, "path": None}])
def test_a_row_without_an_image_is_left_out(row: Any):
    with pytest.raises(BadImage, match="no image"):
        RowReader([[row]])(0, "train/0")


# datasets


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def packed(tmp_path: Path):
    """Pack a dataset of two images with these columns of labels."""
    import datasets

    def pack(columns: dict[str, list[Any]], images: tuple[str, ...] = ("image",), **options: Any) -> dict[str, Any]:
        drawn = {name: [{"bytes": _png(number), "path": None} for number in (1, 2)] for name in images}
        table = datasets.Dataset.from_dict({**drawn, **columns})
        for name in images:
            table = table.cast_column(name, datasets.Image())
        table.to_parquet(tmp_path / "set/train.parquet")
        stats = shard(f"hf:{tmp_path / 'set'}", tmp_path / "out", workers=1, **options)
        return stats["splits"]["train"]

    return pack


def _png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_labels_come_from_the_column_that_is_named(packed):
    assert packed({"label": ["a", "b"], "species": ["cat", "dog"]}, labels="species")["classes"] == {"cat": 1, "dog": 1}


def test_a_column_that_is_not_there_is_refused(packed):
    with raises("shard.labels.column"):
        packed({"label": ["a", "b"]}, labels="species")


@pytest.mark.parametrize(
    ("columns", "options", "word"),
    [
        ({"species": ["cat", "dog"]}, {}, "species"),
        ({"label": [0.5, 0.25]}, {}, "column label"),
        ({"label": ["", None]}, {}, "column label"),
    ],
)
def test_labels_that_are_not_taken_are_reported(
    packed, columns: dict[str, list[Any]], options: dict[str, str], word: str, caplog: pytest.LogCaptureFixture
):
    assert packed(columns, **options)["without_label"] == 2
    assert word in caplog.text


def test_one_row_without_a_label_loses_no_other(packed, caplog: pytest.LogCaptureFixture):
    """A table turns the integers of a column with a gap into floats."""
    caplog.set_level("INFO")
    found = packed({"label": [3.0, None]})
    assert found["classes"] == {"3": 1} and found["without_label"] == 1
    assert "without a label in train: 1" in caplog.text


def test_the_column_of_masks_is_not_packed(packed, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    assert packed({}, images=("annotation", "image"))["images"] == 2
    assert "not packed: annotation" in caplog.text


def test_two_columns_of_images_are_ambiguous(packed):
    with raises("shard.hub.column"):
        packed({}, images=("annotation", "before"))


def test_a_dataset_that_was_saved_to_disk(tmp_path: Path):
    import datasets

    table = datasets.Dataset.from_dict({"image": [{"bytes": _png(1), "path": None}], "label": ["cat"]})
    table.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "set")
    stats = shard(f"hf:{tmp_path / 'set'}", tmp_path / "out", workers=1)
    assert stats["splits"]["train"]["classes"] == {"cat": 1}


def test_a_split_that_is_left_out_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    import datasets

    caplog.set_level("INFO")
    for number, split in enumerate(("train", "validation", "test")):
        table = datasets.Dataset.from_dict({"image": [{"bytes": _png(number), "path": None}]})
        table.cast_column("image", datasets.Image()).to_parquet(tmp_path / f"set/{split}.parquet")
    splits = shard(f"hf:{tmp_path / 'set'}", tmp_path / "out", workers=1)["splits"]
    assert [splits[split]["images"] for split in ("train", "val")] == [
        1,
        1,
    ] and "not packed: the split test" in caplog.text


@pytest.mark.parametrize("source", ["hf:", "torchvision:"])
def test_a_hub_without_a_name(source: str, tmp_path: Path):
    with raises("shard.hub.no_name"):
        shard(source, tmp_path / "out")
