from pathlib import Path
from typing import Any

import pytest
import torch
from support.errors import raises
from support.tiny_models import tiny_mae, tiny_weights

from mae_kit.encoders.position_embeddings import resample_positions, sincos_positions
from mae_kit.weights.adapt import rechannelled, resized
from mae_kit.weights.native import to_objective
from mae_kit.weights.pretrained import build_timm


def test_another_size_resamples_the_encoder_and_computes_the_decoder_anew():
    mae = tiny_mae()
    weights = resized(tiny_weights(mae), (48, 32))
    table = dict(mae.encoder.model.state_dict())["pos_embed"]
    assert torch.equal(weights.tensors["pos_embed"], resample_positions(table, (4, 4), (6, 4)))
    assert weights.decoder and torch.equal(weights.decoder.tensors["pos_embed"], sincos_positions(32, (6, 4)))
    assert weights.config.model_args["img_size"] == [48, 32]
    outcome = to_objective(weights)(torch.randn(1, 3, 48, 32), torch.tensor([1]))
    assert outcome.prediction.shape == (1, 24, 192)


def test_the_same_size_changes_nothing():
    weights = tiny_weights(tiny_mae())
    same = resized(weights, (32, 32))
    assert same.config == weights.config
    assert all(torch.equal(same.tensors[name], tensor) for name, tensor in weights.tensors.items())


@pytest.mark.parametrize(("old", "new"), [(3, 1), (3, 6), (1, 3), (3, 4)])
def test_the_mean_of_the_channels_sees_a_gray_image_as_before(old: int, new: int):
    mae = tiny_mae(in_chans=old)
    weights = rechannelled(tiny_weights(mae), new, "mean")
    model, gray = build_timm(weights), torch.randn(2, 1, 32, 32)
    before = mae.encoder(gray.expand(-1, old, -1, -1))
    torch.testing.assert_close(model.forward_features(gray.expand(-1, new, -1, -1)), before, rtol=1e-4, atol=1e-4)
    assert weights.config.mean == pytest.approx([sum((0.4, 0.5, 0.6)[:old]) / old] * new)


def test_repeated_channels_come_in_turn():
    mae = tiny_mae()
    weights = rechannelled(tiny_weights(mae), 6, "repeat")
    model, images, gray = (
        build_timm(weights),
        torch.randn(2, 3, 32, 32),
        torch.randn(2, 1, 32, 32).expand(-1, 3, -1, -1),
    )
    both = torch.cat([images, images], dim=1)
    torch.testing.assert_close(model.forward_features(both), mae.encoder(images), rtol=1e-4, atol=1e-4)
    assert weights.config.mean == pytest.approx([0.4, 0.5, 0.6] * 2)
    keys = torch.tensor([1, 2])
    predicted = to_objective(weights)(torch.cat([gray, gray], dim=1), keys).prediction.reshape(2, 16, 64, 6)
    before = mae(gray, keys).prediction.reshape(2, 16, 64, 3)
    torch.testing.assert_close(predicted, torch.cat([before, before], dim=-1), rtol=1e-4, atol=1e-4)


def test_a_mean_prediction_is_the_mean_of_the_predictions():
    mae: Any = tiny_mae()
    weights = rechannelled(tiny_weights(mae), 1, "mean")
    gray, keys = torch.randn(2, 1, 32, 32), torch.tensor([1, 2])
    before = mae(gray.expand(-1, 3, -1, -1), keys).prediction.reshape(2, 16, 64, 3).mean(dim=-1)
    torch.testing.assert_close(to_objective(weights)(gray, keys).prediction, before, rtol=1e-4, atol=1e-4)


def test_a_size_that_the_patch_does_not_divide(tmp_path: Path):
    with raises("encoder.img_size"):
        resized(tiny_weights(tiny_mae()), (36, 36))
