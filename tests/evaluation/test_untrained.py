"""An encoder before its training."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tiny_models import ARGS, MEAN, STD, shaken
from untrained import write_run

from mae_kit import backbones  # noqa: F401  # timm then knows igpt_s
from mae_kit.downstream.classifier_file import ClassifierConfig, save_classifier
from mae_kit.encoder_file import load_encoder
from mae_kit.errors import UserError
from mae_kit.evaluation.untrained import untrained_encoder


def test_fresh_weights_in_the_same_architecture(tmp_path: Path):
    write_run(tmp_path)
    config, trained = load_encoder(tmp_path)
    found = {}
    for seed in (1, 2, 1):
        with untrained_encoder(tmp_path, seed) as folder:
            fresh, tensors = load_encoder(folder)
        assert (fresh.model, fresh.model_args, fresh.step) == (config.model, config.model_args, 0)
        assert {name: each.shape for name, each in tensors.items()} == {n: t.shape for n, t in trained.items()}
        assert seed not in found or all(torch.equal(found[seed][name], each) for name, each in tensors.items())
        found[seed] = tensors
    name = "blocks.0.attn.qkv.weight"
    assert not torch.equal(found[1][name], trained[name]) and not torch.equal(found[1][name], found[2][name])
    assert torch.equal(found[1]["pos_embed"], found[2]["pos_embed"]), "sines and cosines are not drawn"


def write_classifier(folder: Path, name: str, args: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Its tensors; images are of 64 x 96 pixels."""
    sized: dict[str, Any] = {"img_size": (64, 96)} if timm.get_pretrained_cfg_value(name, "fixed_input_size") else {}
    model = shaken(timm.create_model(name, num_classes=2, **(args | sized)))
    save_classifier(folder, model, ClassifierConfig(name, args, ["a", "b"], MEAN, STD, (64, 96), 1.0))
    return model.state_dict()


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("vit_base_patch16_224", {**ARGS, "global_pool": "avg"}),
        ("convnextv2_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}),
        ("igpt_s", {"colours": 16, "embed_dim": 24, "depth": 1, "num_heads": 2}),
    ],
)
def test_of_a_classifier_too(tmp_path: Path, name: str, args: dict[str, Any]):
    """A training from scratch has no other encoder."""
    trained = write_classifier(tmp_path, name, {key: value for key, value in args.items() if key != "img_size"})
    found = []
    for seed in (1, 2, 1):
        with untrained_encoder(tmp_path, seed) as folder:
            config, tensors = load_encoder(folder)
        assert (config.model, config.image_size, config.mean, config.step) == (name, [64, 96], MEAN, 0)
        assert not [key for key in tensors if key.startswith(("head.fc.", "head.weight", "head.bias"))]
        found.append(tensors)
    drawn = {key for key in found[0] if key in trained and found[0][key].ndim > 1 and found[0][key].any()} - {"palette"}
    assert not any(torch.equal(found[0][key], other[key]) for key in drawn for other in (trained, found[1]))
    assert all(torch.equal(found[0][key], found[2][key]) for key in found[0]) and len(drawn) > 3
    assert "palette" not in trained or torch.equal(found[0]["palette"], trained["palette"])


def test_a_classifier_that_is_none_of_ours_has_no_encoder(tmp_path: Path):
    write_classifier(tmp_path, "convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]})
    with pytest.raises(UserError, match="convnext_atto"), untrained_encoder(tmp_path, 0):
        pass
