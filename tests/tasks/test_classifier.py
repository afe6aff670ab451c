"""Classifiers: any timm model, from scratch or from an encoder, with nothing lost on the way unsaid."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from support.errors import raises
from support.tiny_models import MEAN, STD, tiny_classifier
from timm.layers import DropPath

from mae_kit.encoders import Hiera, create_encoder
from mae_kit.encoders.position_embeddings import resample_offsets
from mae_kit.tasks.classifier import ModelSpec, build_classifier, check_batch_norm, classifier_from
from mae_kit.training.optimizer import build_optimizer, layer_decay_groups
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import save_classifier, save_encoder
from mae_kit.weights.recognize import load_encoder

ARGS: dict[str, Any] = {"img_size": [32, 48], "patch_size": 8, "in_chans": 3, "depth": 2}
SPEC = ModelSpec("test_vit", {"patch_size": 8, "depth": 2})


def write_encoder(folder: Path, name: str = "test_vit", args: dict[str, Any] = ARGS) -> Any:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **args)
    config = ModelConfig(name, args, [0.4, 0.5, 0.6], [0.2, 0.2, 0.3], objective="mae", step=7)
    save_encoder(folder, model.state_dict(), config)
    return model.eval()


def test_features_equal_plain_timms(tmp_path: Path):
    plain = write_encoder(tmp_path)
    classifier = build_classifier(None, 5, load_encoder(tmp_path), 0.1, (32, 48))
    model: Any = classifier.model.eval()
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        torch.testing.assert_close(plain.norm(model.forward_features(images)), plain.forward_features(images))
        tokens = model.forward_features(images)
        pooled = model.fc_norm(tokens[:, 1:].mean(1))
        torch.testing.assert_close(model(images), model.head(pooled))
        torch.testing.assert_close(model.forward_head(tokens, pre_logits=True), pooled)  # no class token in the mean
    assert classifier.mean == [0.4, 0.5, 0.6] and classifier.std == [0.2, 0.2, 0.3]


def test_reports_every_tensor(tmp_path: Path):
    plain = write_encoder(tmp_path)
    classifier = build_classifier(SPEC, 5, load_encoder(tmp_path / "encoder.safetensors"), 0.0, (32, 48))
    assert classifier.dropped == ["norm.bias", "norm.weight"]
    assert classifier.fresh == ["fc_norm.bias", "fc_norm.weight", "head.bias", "head.weight"]
    assert classifier.loaded == len(plain.state_dict()) - 2
    loaded = {k: v for k, v in classifier.model.state_dict().items() if k not in classifier.fresh}
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in loaded.items())


def test_starts_as_the_original_does(tmp_path: Path):
    write_encoder(tmp_path)
    tuned: Any = build_classifier(SPEC, 1000, load_encoder(tmp_path), 0.1, (32, 48)).model
    assert 1e-5 < tuned.head.weight.std().item() < 3e-5 and not tuned.head.bias.any()
    assert tuned.pos_embed.requires_grad
    scratch: Any = build_classifier(SPEC, 1000, None, 0.1, (32, 48)).model
    assert 0.018 < scratch.head.weight.std().item() < 0.022, "timm's own"
    assert [(n, p.shape) for n, p in scratch.named_parameters()] == [(n, p.shape) for n, p in tuned.named_parameters()]
    assert tuned.blocks[1].drop_path1.drop_prob == pytest.approx(0.1)


def test_without_stochastic_depth_a_swin_has_none():
    """Its own is .1."""
    spec = ModelSpec("swin_tiny_patch4_window7_224", {"embed_dim": 12, "depths": [1, 2], "num_heads": [1, 2]})
    rates = {}
    for rate in (0.0, 0.2):
        model = build_classifier(spec, 5, None, rate, (224, 224)).model
        rates[rate] = max((part.drop_prob for part in model.modules() if isinstance(part, DropPath)), default=0)
    assert rates == {0.0: 0, 0.2: pytest.approx(0.2)}


def test_positions_follow_the_resolution(tmp_path: Path):
    plain = write_encoder(tmp_path)
    model: Any = build_classifier(None, 3, load_encoder(tmp_path), 0.0, (64, 64)).model
    assert model.pos_embed.shape[1] == 1 + 8 * 8 and model(torch.randn(1, 3, 64, 64)).shape == (1, 3)
    torch.testing.assert_close(model.pos_embed[:, :1], plain.pos_embed[:, :1])
    grid = plain.pos_embed[:, 1:].reshape(1, 4, 6, -1).permute(0, 3, 1, 2)
    wanted = torch.nn.functional.interpolate(grid, (8, 8), mode="bicubic", align_corners=False)
    torch.testing.assert_close(model.pos_embed[0, 1:].T.reshape(-1, 8, 8), wanted[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_resnet", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_model_learns(name: str, channels: int):
    args = {"depth": 2} if name.startswith("vit") else {}
    torch.manual_seed(0)
    model = build_classifier(ModelSpec(name, args), 4, None, 0.1, (64, 64), channels).model
    optimizer = build_optimizer(layer_decay_groups(model, 0.05, 0.75), betas=(0.9, 0.999))
    for group in optimizer.param_groups:
        group["lr"] = 1e-3 * group["lr_scale"]
    images, labels, losses = torch.randn(4, channels, 64, 64), torch.arange(4), []
    for _ in range(4):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "convnext_atto",
        "swin_tiny_patch4_window7_224",
        "mixer_s32_224",
        "tnt_s_patch16_224",
        "vit_small_r26_s32_224",
        "deit_small_patch16_224",
        "resnetv2_50x1_bit",
    ],
)
def test_the_supervised_baselines_build_and_learn(name: str):
    model: Any = build_classifier(ModelSpec(name), 3, None, 0.1, (64, 64)).model
    logits = model(torch.randn(2, 3, 64, 64))
    logits.sum().backward()
    assert logits.shape == (2, 3)
    assert sum(len(g["params"]) for g in layer_decay_groups(model, 0.05, 0.75)) == len(list(model.parameters()))


def test_an_encoder_of_another_family(tmp_path: Path):
    write_encoder(tmp_path, "test_convnext", {"in_chans": 3})
    classifier = build_classifier(None, 3, load_encoder(tmp_path, any_family=True), 0.1, (64, 64))
    assert classifier.dropped == [] and classifier.fresh == ["head.fc.bias", "head.fc.weight"]
    assert classifier.model(torch.randn(2, 3, 64, 64)).shape == (2, 3)


WINDOWED: dict[str, Any] = {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2], "in_chans": 3}


def test_a_swin_in_larger_windows(tmp_path: Path):
    """As SimMIM fine-tunes at 224 px, in windows of 7, what it trained at 192 px in windows of 6."""
    name = "swin_tiny_patch4_window7_224"
    plain = write_encoder(tmp_path, name, WINDOWED | {"img_size": 48, "window_size": 6}).state_dict()
    spec = ModelSpec(name, {"window_size": 7})
    model: Any = build_classifier(spec, 1000, load_encoder(tmp_path), 0.0, (56, 56)).model
    found = model.state_dict()
    for key, tensor in plain.items():
        moved = resample_offsets(tensor, (6, 6), (7, 7)) if key.endswith("bias_table") else tensor
        assert torch.equal(found[key], moved), key
    assert model(torch.randn(2, 3, 56, 56)).shape == (2, 1000)
    assert 0.018 < model.head.fc.weight.std().item() < 0.022, "as in SimMIM's swin_transformer.py"


@pytest.mark.parametrize(
    ("name", "args", "changed"),
    [
        ("swin_tiny_patch4_window7_224", WINDOWED | {"img_size": 48, "window_size": 6}, {"window_size": 7}),
        ("beit_base_patch16_224", {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2}, {}),
    ],
)
def test_whether_positions_fit_another_size_is_told_without_memory(
    name: str, args: dict[str, Any], changed: dict[str, Any]
):
    with torch.device("meta"):
        build_classifier(ModelSpec(name, changed), 2, create_encoder(name, args), 0.0, (56, 56))


def test_an_image_consists_of_hieras_mask_units():
    spec = ModelSpec("hiera_tiny_224", {"embed_dim": 16, "stages": [1, 1, 1, 1]})
    build_classifier(spec, 2, None, 0.0, (64, 64))
    with raises("encoder.img_size.patch"):
        build_classifier(spec, 2, None, 0.0, (72, 72))
    with raises("encoder.img_size.patch"):
        Hiera("hiera_tiny_224", img_size=40, embed_dim=16, num_heads=1, stages=[1, 1, 1], q_pool=1)
    with raises("encoder.img_size.patch"):
        Hiera("hiera_tiny_224", img_size=66, embed_dim=16, num_heads=1, stages=[1, 1, 1], q_pool=1)


def test_from_a_file_of_weights(tmp_path: Path):
    trained = timm.create_model("test_resnet", num_classes=7)
    save_file(trained.state_dict(), tmp_path / "weights.safetensors")
    spec = ModelSpec("test_resnet", weights=str(tmp_path / "weights.safetensors"))
    classifier = build_classifier(spec, 3, None, 0.0, (64, 64))
    assert classifier.fresh == classifier.dropped == ["fc.bias", "fc.weight"]
    assert build_classifier(spec, 7, None, 0.0, (64, 64)).fresh == []
    with raises("weights.names"):
        build_classifier(ModelSpec("test_convnext", weights=spec.weights), 3, None, 0.0, (64, 64))
    (tmp_path / "text").write_text("no weights")
    with raises("model.weights"):
        build_classifier(ModelSpec("test_resnet", weights=str(tmp_path / "text")), 3, None, 0.0, (64, 64))


def test_weights_with_a_head_keep_their_pooling(tmp_path: Path):
    trained = timm.create_model("test_vit", img_size=32, num_classes=2).eval()
    save_file(trained.state_dict(), tmp_path / "weights.safetensors")
    spec = ModelSpec("test_vit", weights=str(tmp_path / "weights.safetensors"))
    classifier, images = build_classifier(spec, 2, None, 0.0, (32, 32)), torch.randn(1, 3, 32, 32)
    assert classifier.fresh == []
    torch.testing.assert_close(classifier.model.eval()(images), trained(images))
    token = build_classifier(ModelSpec("test_vit", {"global_pool": "token"}), 2, None, 0.0, (32, 32)).model
    assert token.state_dict().keys() == trained.state_dict().keys()


@pytest.mark.parametrize(
    ("spec", "size", "channels", "key"),
    [
        (None, (32, 48), 1, "encoder.channels"),
        (ModelSpec("test_vit2"), (32, 48), 3, "model.name.encoder"),
        (ModelSpec("test_vit", {"patch_size": 4}), (32, 48), 3, "weights.names.model"),
        (ModelSpec("test_vit", {"depth": 3}), (32, 48), 3, "weights.names.model"),
        (ModelSpec("test_vit", {"num_heads": 4}), (32, 48), 3, "model.args"),
        (ModelSpec("test_vit", weights="timm"), (32, 48), 3, "model.weights.encoder"),
        (None, (36, 48), 3, "encoder.img_size.patch"),
    ],
)
def test_an_encoder_that_does_not_fit(tmp_path: Path, spec: Any, size: Any, channels: int, key: str):
    write_encoder(tmp_path)
    with raises(key):
        build_classifier(spec, 3, load_encoder(tmp_path), 0.0, size, channels)


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        (ModelSpec("vit_tinny_patch16_224"), "model.name.unknown"),
        (ModelSpec("test_resnet", {"patch_size": 8}), "encoder.model_args.refused"),
        (ModelSpec("vit_tiny_patch16_224", {"patch_size": 7}), "encoder.img_size.patch"),
        (None, "model.name.missing"),
    ],
)
def test_a_model_that_is_none(spec: Any, key: str):
    with raises(key):
        build_classifier(spec, 3, None, 0.0, (64, 64))


def test_a_classifier_of_an_encoder_module(tmp_path: Path):
    write_encoder(tmp_path)
    encoder = load_encoder(tmp_path)
    before = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    model: Any = classifier_from(encoder, num_classes=4, drop_path=0.1, image_size=(48, 32))
    assert model(torch.randn(2, 3, 48, 32)).shape == (2, 4) and model.global_pool == "avg"
    assert torch.equal(model.blocks[1].mlp.fc1.weight, before["blocks.1.mlp.fc1.weight"])
    with torch.no_grad():
        model.blocks[1].mlp.fc1.weight.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.model.state_dict().items())
    assert classifier_from(encoder, 4, pooling="map")(torch.randn(1, 3, 32, 48)).shape == (1, 4)


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_weights_that_are_a_classifier_of_ours_keep_its_pooling_and_normalization(tmp_path: Path, pool: str):
    trained = tiny_classifier(global_pool=pool)
    args = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    record = ModelConfig("vit_base_patch16_224", args, MEAN, STD, image_size=(32, 32), classes=[*"abcde"])
    file = save_classifier(tmp_path, trained, record)
    built = build_classifier(ModelSpec(record.model, weights=str(file)), 5, None, 0.0, (32, 32), 3, [*"abcde"])
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(built.model.eval()(images), trained(images))
    assert (built.mean, built.std, built.fresh, built.dropped) == (MEAN, STD, [], [])
    others = build_classifier(ModelSpec(record.model, weights=str(file)), 5, None, 0.0, (32, 32), 3, [*"vwxyz"])
    assert others.fresh == ["head.bias", "head.weight"]
    with raises("model.weights"):
        build_classifier(ModelSpec("resnet18", weights=str(file)), 5, None, 0.0, (32, 32))


def test_batch_norm_is_not_trained_on_single_images():
    model = timm.create_model("test_resnet", num_classes=2)
    check_batch_norm(model, 2)
    with raises("data.batch_size"):
        check_batch_norm(model, 1)
    check_batch_norm(model.requires_grad_(False), 1)
