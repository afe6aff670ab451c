"""MAE's published linear probe: fresh crops in each epoch, and the recipe's rate."""

from pathlib import Path

import pytest
import torch
from support.photo_shards import write_shard
from support.tiny_models import tiny_mae, tiny_weights

from mae_kit.data.index.open import open_index
from mae_kit.evaluation import linear_probe as published
from mae_kit.evaluation.linear_probe import linear_probe
from mae_kit.weights.native import save_encoder
from mae_kit.weights.recognize import load_encoder


@pytest.fixture
def encoder(tmp_path: Path):
    weights = tiny_weights(tiny_mae())
    save_encoder(tmp_path, weights.tensors, weights.config)
    return load_encoder(tmp_path)


@pytest.mark.parametrize("sets", [False, True])
def test_it_learns_and_is_repeatable(encoder, tmp_path: Path, sets: bool):
    for name, numbers in (("train", range(64)), ("val", range(100, 116))):
        (tmp_path / name).mkdir()
        write_shard(tmp_path / name / "a.tar", numbers, sets=sets)
        (tmp_path / name / "classes.txt").write_text("a\nb\nc\nd\n")
    train, val = (open_index(tmp_path / name) for name in ("train", "val"))
    (found, truth), (again, _) = (linear_probe(encoder, train, val, 4, epochs=3, batch_size=32) for _ in range(2))
    assert torch.equal(found, again) and len(found) == len(truth) == 16
    assert found.shape == ((16, 4) if sets else (16,))


def test_each_epoch_has_other_crops_and_the_batch_is_encoded_in_parts(
    encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_shard(tmp_path / "a.tar", range(12))
    index = open_index(tmp_path / "a.tar")
    monkeypatch.setattr(published, "_CHUNK", 4)
    words = encoder, index, index.labeled(), 12, 3, 2, 0
    first, second = (x for x, _ in published._features(*words))
    assert first.shape == second.shape == (12, 48) and not torch.allclose(first.sort(0)[0], second.sort(0)[0])
