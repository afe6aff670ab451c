"""Features of a frozen encoder: what a forward pass gives, kept a file a shard, per encoder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.errors import raises
from support.photo_shards import write_shard

from mae_kit.data.index.open import open_index
from mae_kit.data.loading.loader import EvaluationBatches
from mae_kit.data.transforms.augment import Normalize
from mae_kit.encoders import Swin, ViT
from mae_kit.evaluation.features import FeatureSource, extract_features
from mae_kit.training import precision
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import save_encoder
from mae_kit.weights.recognize import load_encoder

pytestmark = pytest.mark.usefixtures("in_fp32")

ARGS: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "in_chans": 3}


def encoder(folder: Path, seed: int) -> ViT:
    torch.manual_seed(seed)
    return save(folder, ViT("vit_tiny_patch16_224", **ARGS))


def save(folder: Path, model: Any) -> Any:
    folder.mkdir(exist_ok=True)
    config = ModelConfig(model.name, model.model_args, [0.5] * 3, [0.25] * 3, "mae", 1)
    save_encoder(folder, model.model.state_dict(), config)
    return model.eval()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_they_are_the_mean_of_the_patch_tokens_of_what_decodes(tmp_path: Path, workers: int):
    write_shard(tmp_path / "a.tar", range(10), damaged=(3,))
    write_shard(tmp_path / "b.tar", range(10, 15))
    model, index = encoder(tmp_path / "run", 0), open_index(tmp_path)
    features = extract_features(load_encoder(tmp_path / "run"), index, workers)
    assert features.rows.tolist() == [row for row in range(15) if row != 3]
    images = EvaluationBatches(index, features.rows, 14, (32, 32))[0].images
    with torch.no_grad():
        tokens = model(Normalize([0.5] * 3, [0.25] * 3)(images))
    near = 1e-5 if workers == 1 else 0.05  # other processes may compute in bf16
    np.testing.assert_allclose(features.values[FeatureSource(2, "mean")].read(), tokens[:, 1:].mean(dim=1), atol=near)
    np.testing.assert_allclose(features.values[FeatureSource(2, "class")].read(), tokens[:, 0], atol=near)
    assert features.last is features.values[FeatureSource(2, "mean")]


def test_they_are_kept_for_each_encoder(tmp_path: Path):
    write_shard(tmp_path / "a.tar", range(5))
    index = open_index(tmp_path)
    encoder(tmp_path / "run", 0)
    first = extract_features(load_encoder(tmp_path / "run"), index, 1).last.read()
    (file,) = tmp_path.glob(".features-*/a.tar.safetensors")
    made = file.stat().st_mtime_ns
    assert torch.equal(
        extract_features(load_encoder(tmp_path / "run" / "encoder.safetensors"), index, 1).last.read(), first
    )
    assert file.stat().st_mtime_ns == made
    encoder(tmp_path / "run", 1)
    assert not torch.allclose(extract_features(load_encoder(tmp_path / "run"), index, 1).last.read(), first)
    assert len(list(tmp_path.glob(".features-*"))) == 2


def test_another_normalization_gives_others(tmp_path: Path):
    write_shard(tmp_path / "a.tar", range(5))
    index = open_index(tmp_path)
    encoder(tmp_path / "run", 0)
    first = extract_features(load_encoder(tmp_path / "run"), index, 1).last.read()
    weights = load_encoder(tmp_path / "run")
    save_encoder(tmp_path / "run", weights.model.state_dict(), replace(weights.pretrained_cfg, mean=[0.1] * 3))
    assert not torch.allclose(extract_features(load_encoder(tmp_path / "run"), index, 1).last.read(), first)


def test_on_a_machine_with_bf16_they_are_nearly_those_of_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_shard(tmp_path / "a.tar", range(5))
    encoder(tmp_path / "run", 0)
    index, found = open_index(tmp_path), []
    for has_bf16 in (False, True):
        monkeypatch.setattr(precision, "_cpu_computes_bf16", lambda has_bf16=has_bf16: has_bf16)
        found.append(extract_features(load_encoder(tmp_path / "run"), index, 1).last.read())
    exact, rounded = found
    assert not torch.equal(exact, rounded) and rounded.dtype == torch.float32
    assert torch.cosine_similarity(exact, rounded).min() > 0.999


def test_layers_come_from_one_pass_and_are_kept_apart_from_the_last_alone(tmp_path: Path):
    write_shard(tmp_path / "a.tar", range(5))
    model, index = encoder(tmp_path / "run", 0), open_index(tmp_path)
    last = extract_features(load_encoder(tmp_path / "run"), index, 1)
    both = extract_features(load_encoder(tmp_path / "run"), index, 1, layers=[2, 1, 2])
    assert set(both.values) == {FeatureSource(layer, token) for layer in (1, 2) for token in ("mean", "class")}
    np.testing.assert_allclose(both.last.read(), last.last.read(), atol=1e-6)
    model.model.blocks = model.model.blocks[:1]
    images = Normalize([0.5] * 3, [0.25] * 3)(EvaluationBatches(index, both.rows, 5, (32, 32))[0].images)
    with torch.no_grad():
        np.testing.assert_allclose(both.values[FeatureSource(1, "class")].read(), model(images)[:, 0], atol=1e-5)
    assert len(list(tmp_path.glob(".features-*"))) == 2
    for wrong in ([0], [3]):
        with raises("layers"):
            extract_features(load_encoder(tmp_path / "run"), index, 1, layers=wrong)


def test_stages_of_a_swin_have_their_own_widths(tmp_path: Path):
    write_shard(tmp_path / "a.tar", range(3), damaged=(0, 1, 2))
    write_shard(tmp_path / "b.tar", range(3))
    args = {"img_size": 32, "window_size": 2, "embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2]}
    torch.manual_seed(0)
    model = save(tmp_path / "run", Swin("swin_tiny_patch4_window7_224", **args))
    index = open_index(tmp_path)
    features = extract_features(load_encoder(tmp_path / "run"), index, 1, layers=[1, 2])
    assert {source: values.shape for source, values in features.values.items()} == {
        FeatureSource(1, "mean"): (3, 12),
        FeatureSource(2, "mean"): (3, 24),
    }
    images = Normalize([0.5] * 3, [0.25] * 3)(EvaluationBatches(index, features.rows, 3, (32, 32))[0].images)
    with torch.no_grad():
        np.testing.assert_allclose(features.last.read(), model(images).mean(dim=1), atol=1e-5)
