"""Which parameters learn, and which modules rest."""

from typing import Any

import pytest
import timm
import torch
from support.errors import raises

from mae_kit.training.freezing import freeze_below, frozen_parts

ATTENTIVE: dict[str, Any] = {"global_pool": "map"}
LEARNING: list[tuple[str, dict[str, Any], int, tuple[str, ...]]] = [
    ("test_vit", {}, 0, ("head",)),
    ("test_vit", ATTENTIVE, 0, ("attn_pool", "head")),
    ("test_vit", {}, 1, ("blocks.5", "norm", "head")),
    ("test_vit", {"global_pool": "avg"}, 2, ("blocks.4", "blocks.5", "fc_norm", "head")),
    ("test_vit", {}, 6, ("blocks", "norm", "head")),
    ("test_resnet", {}, 1, ("layer4.0", "fc")),
    ("test_convnext", {}, 2, ("stages.3", "head")),
    ("swin_tiny_patch4_window7_224", {}, 1, ("layers.3.blocks.1", "norm", "head")),
    ("hiera_tiny_224", {}, 1, ("blocks.11", "head")),
    ("beit_base_patch16_224", {}, 1, ("blocks.11", "fc_norm", "head")),
]


@pytest.mark.parametrize(("name", "args", "blocks", "learning"), LEARNING)
def test_the_last_blocks_and_the_head_learn(name: str, args: dict[str, Any], blocks: int, learning: tuple[str, ...]):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=3, **args)
    freeze_below(model, blocks)
    asked = tuple(f"{part}." for part in learning)
    for parameter_name, parameter in model.named_parameters():
        assert parameter.requires_grad == parameter_name.startswith(asked), parameter_name


@pytest.mark.parametrize(
    ("name", "args", "blocks", "learning"),
    [
        ("test_vit", {"global_pool": ""}, 0, ()),
        ("test_vit", {"global_pool": ""}, 1, ("blocks.5", "norm")),
        ("test_resnet", {}, 0, ()),
        ("swin_tiny_patch4_window7_224", {}, 1, ("layers.3.blocks.1", "norm")),
    ],
)
def test_of_a_backbone_without_a_head_as_many_blocks_learn(name: str, args: dict, blocks: int, learning: tuple):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0, **args)
    freeze_below(model, blocks)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert all(name.startswith(learning) for name in names) and bool(names) == bool(learning)


@pytest.mark.parametrize(("blocks", "model"), [(-1, "test_vit"), (7, "test_vit"), (5, "test_resnet")])
def test_more_blocks_than_there_are(blocks: int, model: str):
    depth = 6 if model == "test_vit" else 4
    with raises("blocks") as refused:
        freeze_below(timm.create_model(model, num_classes=3), blocks)
    assert str(depth) in refused.value.fix


def test_what_comes_before_rests():
    model: Any = timm.create_model("test_vit", num_classes=3, pos_drop_rate=0.5, drop_rate=0.5, drop_path_rate=0.5)
    assert frozen_parts(model) == []
    freeze_below(model, 2)
    for part in frozen_parts(model.train()):
        part.eval()
    resting = {name for name, module in model.named_modules() if not module.training}
    assert {"patch_embed", "pos_drop", "blocks.0", "blocks.3.drop_path2"} <= resting
    assert not resting & {"", "blocks", "blocks.4", "blocks.5.drop_path1", "norm", "head_drop", "head"}


def test_batch_statistics_stand_still_and_nothing_is_kept_for_the_backward_pass():
    torch.manual_seed(0)
    model: Any = timm.create_model("test_resnet", num_classes=3)
    freeze_below(model, 1)
    for part in frozen_parts(model.train()):
        part.eval()
    before = {name: value.clone() for name, value in model.named_buffers()}
    features: list[torch.Tensor] = []
    model.layer3.register_forward_hook(lambda *found: features.append(found[2]))
    model(torch.randn(4, 3, 64, 64)).sum().backward()
    assert not features[0].requires_grad
    moved = {name.split(".")[0] for name, value in model.named_buffers() if not torch.equal(value, before[name])}
    assert moved == {"layer4"}
