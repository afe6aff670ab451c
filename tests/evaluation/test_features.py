"""Features of a frozen encoder: what a forward pass gives, kept a file a shard, per encoder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from photos import write_shard

from mae_kit.backbones.vit import ViT
from mae_kit.data.augment import Normalise
from mae_kit.data.index import open_index
from mae_kit.data.loader import EvaluationBatches
from mae_kit.encoder_file import EncoderConfig, save_encoder
from mae_kit.evaluation.features import extract_features

ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 1, "num_heads": 3, "in_chans": 3}


def encoder(folder: Path, seed: int) -> ViT:
    torch.manual_seed(seed)
    model = ViT("vit_tiny_patch16_224", **ARGS).eval()
    folder.mkdir(exist_ok=True)
    config = EncoderConfig(model.name, model.model_args, [0.5] * 3, [0.25] * 3, "mae", 1)
    save_encoder(folder, model.model.state_dict(), config)
    return model


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_they_are_the_mean_of_the_patch_tokens_of_what_decodes(tmp_path: Path, workers: int):
    write_shard(tmp_path / "a.tar", range(10), damaged=(3,))
    write_shard(tmp_path / "b.tar", range(10, 15))
    model, index = encoder(tmp_path / "run", 0), open_index(tmp_path)
    features = extract_features(tmp_path / "run", index, workers)
    assert features.rows.tolist() == [row for row in range(15) if row != 3]
    images = EvaluationBatches(index, features.rows, 14, (32, 32))[0].images
    with torch.no_grad():
        tokens = model(Normalise([0.5] * 3, [0.25] * 3)(images))
    np.testing.assert_allclose(features.values, tokens[:, 1:].mean(dim=1), atol=1e-5)
    np.testing.assert_allclose(features.class_tokens, tokens[:, 0], atol=1e-5)


def test_they_are_kept_for_each_encoder(tmp_path: Path):
    write_shard(tmp_path / "a.tar", range(5))
    index = open_index(tmp_path)
    encoder(tmp_path / "run", 0)
    first = extract_features(tmp_path / "run", index, 1)
    (file,) = tmp_path.glob(".features-*/a.tar.safetensors")
    made = file.stat().st_mtime_ns
    assert (extract_features(tmp_path / "run" / "encoder.safetensors", index, 1).values == first.values).all()
    assert file.stat().st_mtime_ns == made
    encoder(tmp_path / "run", 1)
    assert not np.allclose(extract_features(tmp_path / "run", index, 1).values, first.values)
    assert len(list(tmp_path.glob(".features-*"))) == 2
