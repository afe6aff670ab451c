# Also tests data/index/stats_file.py.

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from support.photo_shards import write_shard

from mae_kit.data.decode import decode
from mae_kit.data.index import statistics
from mae_kit.data.index.index import Index
from mae_kit.data.index.open import open_index
from mae_kit.data.index.statistics import FILE, IMAGENET, channel_statistics, choose_statistics, warn_of_mismatch

MEASURED = {"mean": [0.12345, 0.2, 0.3], "std": [0.1, 0.2, 0.0]}


@pytest.fixture
def index(tmp_path: Path) -> Index:
    write_shard(tmp_path / "train-0.tar", range(4))
    (tmp_path / FILE).write_text(json.dumps(MEASURED))
    return open_index(tmp_path)


def test_what_shard_measured_is_the_default(index: Index):
    assert choose_statistics(None, None, index) == channel_statistics(index) == ([0.1235, 0.2, 0.3], [0.1, 0.2, 1.0])


def test_what_is_given_comes_first(index: Index):
    assert choose_statistics([0.5] * 3, [0.25] * 3, index) == ([0.5] * 3, [0.25] * 3)


@pytest.mark.parametrize(("count", "rows"), [(1, [0]), (2, [0, 3]), (200, [0, 1, 2, 3])])
def test_without_a_file_they_are_of_a_sample(
    index: Index, count: int, rows: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (index.folder / FILE).unlink()
    monkeypatch.setattr(statistics, "SAMPLE", count)
    images = [decode(index.read(row)).reshape(-1, 3) / 255 for row in rows]
    mean = np.mean([image.mean(0) for image in images], axis=0)
    square = np.mean([(image**2).mean(0) for image in images], axis=0)
    with caplog.at_level(logging.INFO):
        found = choose_statistics(None, None, index)
    assert np.allclose(found, (mean, np.sqrt(square - mean**2)), atol=1e-4)
    assert channel_statistics(index) is None and "of a sample" in caplog.text
    assert warn_of_mismatch(([0.01] * 3, found[1]), index, "it normalizes with")


def test_where_no_image_decodes_they_are_imagenets(tmp_path: Path):
    write_shard(tmp_path / "train-0.tar", range(4), damaged=(0, 1, 2, 3))
    index = open_index(tmp_path)
    assert choose_statistics(None, None, index) == IMAGENET
    assert not warn_of_mismatch(IMAGENET, index, "it normalizes with")


@pytest.mark.parametrize(
    ("mean", "std", "far"),
    [(0.2, 0.2, False), (0.29, 0.2, False), (0.31, 0.2, True), (0.2, 0.31, True), (0.2, 0.13, True)],
)
def test_a_mismatch_is_reported(index: Index, caplog: pytest.LogCaptureFixture, mean: float, std: float, far: bool):
    (index.folder / FILE).write_text(json.dumps({"mean": [0.2], "std": [0.2]}))
    assert warn_of_mismatch(([mean], [std]), index, "it normalizes with") is far
    assert len(caplog.records) == far
    assert not warn_of_mismatch(([mean] * 2, [std] * 2), index, "of other channels")
    assert not warn_of_mismatch(([mean], [std] * 2), index, "of no channels at all")
