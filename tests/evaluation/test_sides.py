"""Frozen features with labels: from shards and from encoders, ours and others'."""

from pathlib import Path

import pytest
import torch
from photos import write_shard
from tiny_models import tiny_mae, tiny_weights

from mae_kit.data.index import open_index
from mae_kit.encoder_file import save_encoder
from mae_kit.errors import UserError
from mae_kit.evaluation.features import extract_features
from mae_kit.evaluation.sides import frozen_sides
from mae_kit.formats import original


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with the encoder of a tiny MAE."""
    weights, folder = tiny_weights(tiny_mae()), tmp_path / "run"
    folder.mkdir()
    save_encoder(folder, dict(weights.tensors), weights.encoder)
    return folder


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """9 images to learn from, one of them damaged; 5 to score on."""
    (tmp_path / "shards").mkdir()
    write_shard(tmp_path / "shards/train.tar", range(9), damaged=(2,))
    write_shard(tmp_path / "shards/val.tar", range(20, 25))
    return tmp_path / "shards"


def test_labels_stay_with_their_images(run: Path, shards: Path):
    sides = frozen_sides(run, shards / "train.tar", shards / "val.tar", 1)
    assert list(sides) == ["mean", "class"] and sides["mean"].classes == 4
    features = extract_features(run, open_index(shards / "train.tar"), 1)
    for token, values in (("mean", features.values), ("class", features.class_tokens)):
        assert torch.equal(sides[token].train.features.cpu(), torch.from_numpy(values))
        assert sides[token].train.labels.tolist() == [0, 1, 3, 0, 1, 2, 3, 0]
        assert sides[token].val.labels.tolist() == [0, 1, 2, 3, 0]


def test_a_published_file_is_read_as_it_is_and_its_features_are_kept(run: Path, shards: Path, tmp_path: Path):
    torch.save({"model": original.write(tiny_weights(tiny_mae(num_heads=1, embed_dim=64)))}, tmp_path / "mae.pth")
    first, again = (frozen_sides(tmp_path / "mae.pth", shards / "train.tar", shards / "val.tar", 1) for _ in range(2))
    assert first["mean"].train.features.shape == (8, 64)
    assert torch.equal(first["mean"].train.features, again["mean"].train.features)
    assert len(list(shards.glob(".features-*"))) == 1


def test_sides_that_do_not_fit_are_refused(run: Path, shards: Path, tmp_path: Path):
    write_shard(tmp_path / "bare.tar", range(3), labels=False)
    with pytest.raises(UserError, match=r"bare\.tar has no labels"):
        frozen_sides(run, shards / "train.tar", tmp_path / "bare.tar", 1)
    with pytest.raises(UserError, match="nowhere"):
        frozen_sides(tmp_path / "nowhere", shards / "train.tar", shards / "val.tar", 1)
