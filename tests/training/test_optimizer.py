"""Groups: what decays, and how fast each layer learns."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from mae_kit.training.optimizer import build_optimizer, layer_decay_groups, parameter_groups
from mae_kit.training.precision import resolve, resolve_with_reason


def settings_by_name(module: nn.Module, groups: list[dict]) -> dict[str, dict[str, float]]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    wanted = ("lr_scale", "weight_decay")
    return {names[id(p)]: {key: group[key] for key in wanted} for group in groups for p in group["params"]}


def test_layer_decay_equals_the_original(shared: Path):
    golden = json.loads((shared / "golden/mae_optim.json").read_text())["layer_decay"]
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10, global_pool="avg")
    groups = layer_decay_groups(model, golden["weight_decay"], golden["layer_decay"])
    assert settings_by_name(model, groups) == golden["params"]


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_resnet", "test_efficientnet"])
def test_layer_decay_holds_every_parameter_of_any_timm_model_once(name: str):
    model: Any = timm.create_model(name, num_classes=3)
    groups = layer_decay_groups(model, 0.05, 0.8)
    scales = {name: s["lr_scale"] for name, s in settings_by_name(model, groups).items()}
    assert sum(len(group["params"]) for group in groups) == len(scales) == len(list(model.parameters()))
    head = next(name for name, module in model.named_modules() if module is model.get_classifier())
    assert scales[f"{head}.weight"] == 1.0 and min(scales.values()) < 0.8


def test_blocks_in_groups_of_three_are_those_of_convnext_v2():
    """Its optim_factory.py: stem 0, the first two stages a layer each, the third nine, the last one, then the head."""
    with torch.device("meta"):
        model = timm.create_model("convnextv2_base", num_classes=3)
    settings = settings_by_name(model, layer_decay_groups(model, 0.05, 0.6, 3))
    expected = {"stem.0.weight": 0, "stages.0.blocks.2.mlp.fc1.weight": 1, "stages.1.downsample.1.weight": 2}
    expected |= {"stages.1.blocks.0.conv_dw.weight": 2, "stages.2.downsample.0.weight": 3, "head.norm.weight": 13}
    expected |= {f"stages.2.blocks.{block}.mlp.fc2.weight": 3 + block // 3 for block in range(27)}
    expected |= {"stages.3.downsample.1.weight": 12, "stages.3.blocks.2.norm.bias": 12, "head.fc.weight": 13}
    for name, layer in expected.items():
        assert settings[name]["lr_scale"] == pytest.approx(0.6 ** (13 - layer)), name
    assert len({s["lr_scale"] for s in settings.values()}) == 14 and len(settings) == len(list(model.parameters()))
    assert {s["weight_decay"] for name, s in settings.items() if "grn" in name} == {0.0}


def test_a_block_of_a_vit_is_a_layer_whatever_is_joined():
    model = timm.create_model("test_vit", num_classes=3)
    one, three = (settings_by_name(model, layer_decay_groups(model, 0.05, 0.6, blocks)) for blocks in (1, 3))
    assert one == three


def test_layer_decay_of_one_is_plain():
    model = timm.create_model("test_vit", num_classes=3)
    settings = settings_by_name(model, layer_decay_groups(model, 0.05, 1.0))
    assert {s["lr_scale"] for s in settings.values()} == {1.0}
    assert settings["pos_embed"]["weight_decay"] == 0.0 and settings["head.weight"]["weight_decay"] == 0.05


class Pretraining(nn.Module):
    def __init__(self):
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.positions = nn.Parameter(torch.zeros(1, 9, 4), requires_grad=False)
        self.head = nn.Linear(4, 2)


def test_pretraining_decays_tokens_and_leaves_out_the_frozen():
    module = Pretraining()
    decay = {name: s["weight_decay"] for name, s in settings_by_name(module, parameter_groups(module, 0.05)).items()}
    assert decay == {"mask_token": 0.05, "head.weight": 0.05, "head.bias": 0.0}
    named = settings_by_name(module, parameter_groups(module, 0.05, no_decay=["mask_token"]))
    assert named["mask_token"] == {"weight_decay": 0.0, "lr_scale": 1.0}


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_step_moves_each_group_by_its_rate(name):
    module = Pretraining()
    optimizer = build_optimizer(parameter_groups(module, 0.05), name)
    before = module.head.weight.detach().clone()
    module.head(torch.ones(3, 4)).sum().backward()
    optimizer.step()
    assert torch.equal(module.head.weight, before), "the rate is 0 until the training module sets it"
    for group in optimizer.param_groups:
        group["lr"] = 0.1 * group["lr_scale"]
    optimizer.step()
    assert not torch.equal(module.head.weight, before)


def test_precision_is_asked_of_the_device_only_when_auto(monkeypatch: pytest.MonkeyPatch):
    assert resolve("fp32", "cuda") == "32-true" and resolve("bf16", "cpu") == "bf16-mixed"
    assert resolve("auto", "mps") == "32-true"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert resolve_with_reason("auto", "cpu") == ("bf16-mixed", "bf16 autocast: this cpu supports it")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "avx512_f": True}, raising=False)
    assert resolve("auto", "cpu") == "32-true"
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert resolve("auto", "cpu") == "bf16-mixed"
