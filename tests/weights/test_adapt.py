from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.errors import raises
from support.tiny_models import MEAN, STD, tiny_mae, tiny_weights
from torch import Tensor

from mae_kit.data.transforms.augment import Normalize
from mae_kit.encoders.position_embeddings import resample_positions, sincos_positions
from mae_kit.weights.adapt import rechannelled, rechannelled_from, repatched, resized
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import to_objective
from mae_kit.weights.pretrained import Pretrained, build_timm


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


def normalized(images: Tensor, config: ModelConfig) -> Tensor:
    return Normalize(config.mean, config.std)(images)


@pytest.mark.parametrize(("old", "new"), [(3, 1), (3, 6), (1, 3), (3, 4)])
def test_the_mean_of_the_channels_sees_a_gray_image_as_before(old: int, new: int):
    mae, gray = tiny_mae(in_chans=old), torch.randint(256, (2, 1, 32, 32), dtype=torch.uint8)
    weights, changed = tiny_weights(mae), rechannelled(tiny_weights(mae), new)
    before = mae.encoder(normalized(gray.expand(-1, old, -1, -1), weights.config))
    after = build_timm(changed).forward_features(normalized(gray.expand(-1, new, -1, -1), changed.config))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert changed.config.mean == pytest.approx([sum((0.4, 0.5, 0.6)[:old]) / old] * new)
    assert changed.notes == weights.notes


@pytest.mark.parametrize("sources", [(0, 3, 2, 1), (1, 2, 3), (3, 3, 1, 0, 2, 0)], ids=str)
def test_channels_by_name_see_colors_as_before(sources: tuple[int, ...]):
    mae, colors = tiny_mae(), torch.rand(2, 3, 32, 32) * 255
    changed = rechannelled_from(tiny_weights(mae), sources)
    mean = torch.tensor(changed.config.mean)[:, None, None] * 255
    images = torch.stack([colors[:, one - 1] if one else mean[i].expand(2, 32, 32) for i, one in enumerate(sources)], 1)
    before = mae.encoder(normalized(colors, tiny_weights(mae).config))
    after = build_timm(changed).forward_features(normalized(images, changed.config))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert changed.decoder is None and "decoder" in changed.notes[-1]


def test_channels_that_are_not_there():
    with raises("channels_from"):
        rechannelled_from(tiny_weights(tiny_mae()), (1, 4))


@pytest.mark.parametrize("name", ["test_resnet", "hiera_tiny_224"])
def test_a_convolution_that_pads_or_has_no_bias_is_noted(name: str):
    config = ModelConfig(name, {}, MEAN, STD, image_size=(224, 224))
    weights = Pretrained("a model", config, timm.create_model(name, num_classes=0).state_dict())
    assert len(rechannelled(weights, 1).notes) == 1
    equal = weights._replace(config=replace(config, mean=[0.5] * 3, std=[0.5] * 3))
    assert rechannelled(equal, 1).notes == []


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_a_mean_prediction_is_the_mean_of_the_predictions(norm_pix_loss: bool):
    """In units of 0..1 where pixels are plain."""
    mae: Any = tiny_mae()
    mae.norm_pix_loss = norm_pix_loss
    weights, keys = tiny_weights(mae), torch.tensor([1, 2])
    changed, gray = rechannelled(weights, 1), torch.randint(256, (2, 1, 32, 32), dtype=torch.uint8)
    before = mae(normalized(gray.expand(-1, 3, -1, -1), weights.config), keys).prediction.reshape(2, 16, 64, 3)
    after = to_objective(changed)(normalized(gray, changed.config), keys).prediction
    if not norm_pix_loss:
        before = before * torch.tensor(STD) + torch.tensor(MEAN)
        after = after * changed.config.std[0] + changed.config.mean[0]
    torch.testing.assert_close(after, before.mean(dim=-1), rtol=1e-4, atol=1e-4)


def test_a_size_that_the_patch_does_not_divide(tmp_path: Path):
    with raises("encoder.img_size"):
        resized(tiny_weights(tiny_mae()), (36, 36))


def test_other_patches_keep_the_grid_and_leave_the_decoder_out():
    weights = repatched(tiny_weights(tiny_mae()), (16, 8))
    assert weights.config.image_size == (64, 32) and weights.decoder is None and len(weights.notes) == 2
    assert build_timm(weights).forward_features(torch.randn(1, 3, 64, 32)).shape == (1, 17, 48)
    same = tiny_weights(tiny_mae())
    assert repatched(same, (8, 8)) is same


def test_patches_that_several_layers_make_are_refused():
    config = ModelConfig("test_resnet", {}, MEAN, STD, image_size=(64, 64))
    with raises("patch_size"):
        repatched(Pretrained("a model", config, {}), (16, 16))
