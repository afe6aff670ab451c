"""An encoder before its training."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.errors import raises
from support.tiny_models import MEAN, STD, shaken
from support.untrained_run import write_run
from torch import nn

from mae_kit.encoders.image_gpt_model import TimmImageGPT
from mae_kit.evaluation.untrained import untrained_encoder
from mae_kit.tasks.classifier import ModelSpec, build_classifier
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import save_classifier
from mae_kit.weights.recognize import load_encoder

SIZES = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}


def test_fresh_weights_in_the_same_architecture(tmp_path: Path):
    write_run(tmp_path)
    loaded = load_encoder(tmp_path)
    config, trained = loaded.pretrained_cfg, loaded.model.state_dict()
    found = {}
    for seed in (1, 2, 1):
        encoder = untrained_encoder(tmp_path, seed)
        fresh, tensors = encoder.pretrained_cfg, encoder.model.state_dict()
        assert (fresh.model, fresh.model_args, fresh.step) == (config.model, config.model_args, 0)
        assert {name: each.shape for name, each in tensors.items()} == {n: t.shape for n, t in trained.items()}
        assert seed not in found or all(torch.equal(found[seed][name], each) for name, each in tensors.items())
        found[seed] = tensors
    name = "blocks.0.attn.qkv.weight"
    assert not torch.equal(found[1][name], trained[name]) and not torch.equal(found[1][name], found[2][name])
    assert torch.equal(found[1]["pos_embed"], found[2]["pos_embed"]), "sines and cosines are not drawn"


CLASSIFIERS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_base_patch16_224", {**SIZES, "patch_drop_rate": 0.5}),
    "beit": ("beit_base_patch16_224", {**SIZES, "init_values": 0.1}),
    "hiera": ("hiera_tiny_224", {"embed_dim": 16, "num_heads": 1, "stages": [1, 1, 1, 1]}),
    "convnextv2": ("convnextv2_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}),
    "igpt": ("igpt_s", {"colors": 16, "embed_dim": 24, "depth": 1, "num_heads": 2}),
}
SIZE = (64, 96)


def start(name: str, args: dict[str, Any], seed: int) -> Any:
    """Of a training from scratch, its palette found."""
    torch.manual_seed(seed)
    model: Any = build_classifier(ModelSpec(name, args), 2, None, 0.0, SIZE).model
    if isinstance(model, TimmImageGPT):
        model.palette.mul_(0.5)
    return model


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_of_a_fine_tuning_what_it_begins_with_from_scratch(tmp_path: Path, name: str):
    model, args = CLASSIFIERS[name]
    trained, begun = shaken(start(model, args, 0)), start(model, args, 1)
    save_classifier(tmp_path, trained, ModelConfig(model, args, MEAN, STD, image_size=SIZE, classes=["a", "b"]))
    encoder = untrained_encoder(tmp_path, 1)
    config = encoder.pretrained_cfg
    assert (config.image_size, config.mean, config.step) == (SIZE, MEAN, 0)
    images = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = begun.eval().forward_features(images)
        tokens = encoder(images)
    if hasattr(begun, "fc_norm") and not isinstance(begun.fc_norm, nn.Identity):
        features = F.layer_norm(features, features.shape[-1:], eps=1e-6)  # the norm has moved in front of the pooling
    if features.ndim == 4:  # of convolutions
        features = features.flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens, features, rtol=1e-4, atol=1e-5)


def test_a_classifier_that_is_none_of_ours_has_no_encoder(tmp_path: Path):
    args = {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}
    model = start("convnext_atto", args, 0)
    config = ModelConfig("convnext_atto", args, MEAN, STD, image_size=SIZE, classes=["a", "b"])
    save_classifier(tmp_path, model, config)
    with raises("encoder.model_args"):
        untrained_encoder(tmp_path, 0)
