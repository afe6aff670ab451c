"""The library as an outsider uses it: plain modules, plain Trainers, recipes by name, an objective of one's own."""

import copy
import pickle
from typing import Any

import pytest
import timm
import torch

import mae_kit as mk

SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}


def small_mae(encoder: Any = None) -> Any:
    return mk.MAE(encoder or mk.ViT("vit_tiny_patch16_224", **SMALL), decoder_dim=32, decoder_depth=1, decoder_heads=2)


def test_an_objective_is_a_module_that_returns_a_loss():
    mae, images = small_mae(), torch.randn(4, 3, 32, 32)
    outcome = mae(images)
    outcome.loss.backward()
    assert torch.isfinite(outcome.loss) and outcome.hidden.float().mean() == 0.75
    assert all(parameter.grad is not None for parameter in mae.parameters() if parameter.requires_grad)


def test_seeds_decide_what_is_hidden():
    mae, images, seeds = small_mae(), torch.randn(4, 3, 32, 32), torch.arange(4)
    first, second = mae(images, seeds), mae(images, seeds)
    assert torch.equal(first.hidden, second.hidden)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda mae: pickle.loads(pickle.dumps(mae)), None], ids=str)
def test_copies_compute_the_same(copied: Any):
    mae, images, seeds = small_mae().eval(), torch.randn(4, 3, 32, 32), torch.arange(4)
    other = copied(mae) if copied else torch.optim.swa_utils.AveragedModel(mae).module
    assert torch.equal(other(images, seeds).loss, mae(images, seeds).loss)


def test_weights_that_are_given_are_kept_until_they_are_initialized():
    model = timm.create_model("vit_tiny_patch16_224", **SMALL, num_classes=0)
    given = {name: value.clone() for name, value in model.state_dict().items() if name.startswith("blocks")}
    mae = small_mae(mk.ViT.from_timm(model))
    kept = mae.encoder.model.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in given.items())
    mae.init_weights()
    assert not torch.equal(given["blocks.0.attn.qkv.weight"], mae.encoder.model.blocks[0].attn.qkv.weight)


@pytest.mark.parametrize("name", ["MAE", "SimMIM", "BEiT", "IGPT", "MaskedPatch", "FCMAE", "HieraMAE", "MaskFeat"])
def test_objectives_have_public_names(name: str):
    assert issubclass(getattr(mk, name), torch.nn.Module)
