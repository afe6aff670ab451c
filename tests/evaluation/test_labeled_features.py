"""Frozen features with labels: from shards and from encoders, ours and others'."""

from pathlib import Path

import pytest
import torch
from support.errors import raises
from support.photo_shards import CLASSES, classes_of, write_shard
from support.tiny_models import tiny_mae, tiny_weights

from mae_kit.data.index.open import open_index
from mae_kit.evaluation import labeled_features as sides
from mae_kit.evaluation.features import FeatureSource, extract_features
from mae_kit.evaluation.labeled_features import FeatureSplits, feature_splits
from mae_kit.evaluation.rows import Rows
from mae_kit.weights import original
from mae_kit.weights.native import save_encoder
from mae_kit.weights.recognize import load_encoder


def splits(encoder: Path, train: Path, val: Path) -> dict[FeatureSource, FeatureSplits]:
    return feature_splits(load_encoder(encoder), open_index(train), open_index(val), workers=1)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with the encoder of a tiny MAE."""
    weights, folder = tiny_weights(tiny_mae()), tmp_path / "run"
    folder.mkdir()
    save_encoder(folder, dict(weights.tensors), weights.config)
    return folder


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """9 images to learn from, one of them damaged; 5 to score on."""
    (tmp_path / "shards").mkdir()
    write_shard(tmp_path / "shards/train.tar", range(9), damaged=(2,))
    write_shard(tmp_path / "shards/val.tar", range(20, 25))
    return tmp_path / "shards"


def test_labels_stay_with_their_images(run: Path, shards: Path):
    found = splits(run, shards / "train.tar", shards / "val.tar")
    assert list(found) == [FeatureSource(2, "mean"), FeatureSource(2, "class")]
    features = extract_features(load_encoder(run), open_index(shards / "train.tar"), 1)
    for source, (train, val, classes) in found.items():
        assert isinstance(train.features, torch.Tensor), "few are held"
        assert torch.equal(train.features.cpu(), features.values[source].read().cpu())
        assert train.labels.tolist() == [0, 1, 3, 0, 1, 2, 3, 0]
        assert val.labels.tolist() == [0, 1, 2, 3, 0] and classes == ["0", "1", "2", "3"]


def test_many_features_stay_on_disk(run: Path, shards: Path, monkeypatch: pytest.MonkeyPatch):
    words = run, shards / "train.tar", shards / "val.tar"
    held = splits(*words)[FeatureSource(2, "mean")]
    monkeypatch.setattr(sides, "HELD", held.train.features.nbytes)  # room for one of four
    train, val, _ = splits(*words)[FeatureSource(2, "mean")]
    assert isinstance(held.train.features, torch.Tensor)
    assert isinstance(train.features, Rows) and isinstance(val.features, Rows)
    assert torch.equal(train.features.read(), held.train.features)
    assert torch.equal(train.labels, held.train.labels)


def test_a_published_file_is_read_as_it_is_and_its_features_are_kept(run: Path, shards: Path, tmp_path: Path):
    torch.save({"model": original.write(tiny_weights(tiny_mae(num_heads=1, embed_dim=64)))}, tmp_path / "mae.pth")
    words = tmp_path / "mae.pth", shards / "train.tar", shards / "val.tar"
    first, again = (splits(*words)[FeatureSource(2, "mean")].train.features for _ in range(2))
    assert isinstance(first, torch.Tensor) and isinstance(again, torch.Tensor)
    assert first.shape == (8, 64) and torch.equal(first, again)
    assert len(list(shards.glob(".features-*"))) == 1


def test_sets_of_classes_stay_with_their_images(run: Path, tmp_path: Path):
    write_shard(tmp_path / "train.tar", range(8), damaged=(2,), sets=True)
    write_shard(tmp_path / "unknown.tar", range(8, 10), labels=False)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    train, val, classes = splits(run, tmp_path, tmp_path / "train.tar")[FeatureSource(2, "mean")]
    shown = [[k in classes_of(number) for k in range(4)] for number in (0, 1, 3, 4, 5, 6, 7)]
    assert train.labels.tolist() == val.labels.tolist() == shown and classes == list(CLASSES)
    assert isinstance(train.features, torch.Tensor) and isinstance(val.features, torch.Tensor)
    assert torch.equal(train.features, val.features) and len(train.features) == 7


def test_sides_that_do_not_fit_are_refused(run: Path, shards: Path, tmp_path: Path):
    write_shard(tmp_path / "bare.tar", range(3), labels=False)
    with raises("data.classes"):
        splits(run, shards / "train.tar", tmp_path / "bare.tar")
