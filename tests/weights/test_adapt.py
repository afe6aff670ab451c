from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.errors import raises
from support.tiny_models import MEAN, STD, tiny_mae, tiny_weights
from torch import Tensor

from mae_kit.data.scale import Scale
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


@pytest.mark.parametrize(
    ("asked", "sources"),
    [
        ("0,3,2,1", (0, 3, 2, 1)),
        ("1,2,3", (1, 2, 3)),
        ("3,3,1,0,2,0", (3, 3, 1, 0, 2, 0)),
        ("B4:R,B3:G,B2:B", (1, 2, 3)),
        ("B, 0, R, G", (3, 0, 1, 2)),
        ("pan:0,B2:B,B3:2,B4:R", (0, 3, 2, 1)),
    ],
)
def test_channels_by_name_see_colors_as_before(asked: str, sources: tuple[int, ...]):
    mae, colors = tiny_mae(), torch.rand(2, 3, 32, 32) * 255
    changed = rechannelled_from(tiny_weights(mae), asked)
    mean = torch.tensor(changed.config.mean)[:, None, None] * 255
    images = torch.stack([colors[:, one - 1] if one else mean[i].expand(2, 32, 32) for i, one in enumerate(sources)], 1)
    before = mae.encoder(normalized(colors, tiny_weights(mae).config))
    after = build_timm(changed).forward_features(normalized(images, changed.config))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert changed.decoder is None and "decoder" in changed.notes[-1]


def of_four_bands() -> Pretrained:
    """An encoder that was trained on bands with names, each on a scale of its own."""
    weights = tiny_weights(tiny_mae(in_chans=4))
    names = ["B2", "B3", "B4", "B8"]
    scale = Scale("uint16", "range", [1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0], [5.0, 6.0, 7.0, 8.0], names=names)
    config = replace(weights.config, mean=[0.1, 0.2, 0.3, 0.4], std=[0.5, 0.6, 0.7, 0.8], scale=scale)
    return weights._replace(config=config)


def test_bands_that_were_trained_on_are_taken_with_their_kernels_statistics_and_scale():
    weights = of_four_bands()
    changed = rechannelled_from(weights, "nir:B8,red:B4")
    kernel = weights.tensors["patch_embed.proj.weight"]
    assert torch.equal(changed.tensors["patch_embed.proj.weight"], kernel[:, [3, 2]])
    config = changed.config
    assert (config.mean, config.std, config.band_names) == ([0.4, 0.3], [0.8, 0.7], ["nir", "red"])
    assert config.scale and (config.scale.low, config.scale.high, config.scale.fill) == ([4, 3], [40, 30], [8, 7])
    assert config.scale.names == ["nir", "red"]
    told = "images have, in this order, nir with the weights of B8, red with the weights of B4"
    assert told in changed.notes


@pytest.mark.parametrize("change", [lambda w: rechannelled_from(w, "0,B8"), lambda w: rechannelled(w, 3)])
def test_the_mean_of_bands_has_no_scale(change: Callable[[Pretrained], Pretrained]):
    assert change(of_four_bands()).config.scale is None


@pytest.mark.parametrize("asked", ["1,4", "B4:R,B3:N", "R;G", "", "1,,2", "B4:-1"])
def test_channels_that_are_not_there(asked: str):
    with raises("channels_from"):
        rechannelled_from(tiny_weights(tiny_mae()), asked)


@pytest.mark.parametrize("asked", ["B4:R,G", "B4:R,B4:G"])
def test_every_channel_has_a_name_of_its_own_or_none_has(asked: str):
    with raises("channels_from.names"):
        rechannelled_from(tiny_weights(tiny_mae()), asked)


def test_the_channels_there_are_get_named():
    with raises("channels_from") as error:
        rechannelled_from(of_four_bands(), "red:R")
    assert "B2, B3, B4, B8" in str(error.value)


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
