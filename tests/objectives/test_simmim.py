"""SimMIM against transformers' models with the same weights and masks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.errors import raises
from support.tiny_models import shaken
from support.training_steps import ten_losses
from timm.layers import DropPath
from torch import Tensor

from mae_kit.encoders import BEiTEncoder, Swin, ViT
from mae_kit.objectives import SimMIM
from mae_kit.objectives.masking import unit_mask
from mae_kit.training.optimizer import parameter_groups

COMMON = [
    ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
    ("attn.proj", "attention.o_proj"),
    ("attn.qkv", "attention.qkv"),
    ("norm1", "layernorm_before"),
    ("norm2", "layernorm_after"),
]
VIT = [
    ("encoder.model.", "vit."),
    ("vit.norm.", "vit.layernorm."),
    ("blocks.", "layers."),
    ("cls_token", "embeddings.cls_token"),
    ("pos_embed", "embeddings.position_embeddings"),
]
SWIN = [
    ("encoder.model.", "swin."),
    ("swin.norm.", "swin.layernorm."),
    ("patch_embed.norm", "embeddings.norm"),
    ("layers.1.downsample", "layers.0.downsample"),  # timm has it before a stage, transformers behind one
    ("swin.layers.", "swin.encoder.layers."),
    ("attn.relative", "attention.relative_position_bias.relative"),
]
SWIN_SIZES: dict[str, Any] = {"embed_dim": 16, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    """How far two implementations drift apart in ten steps depends on the weights that are drawn."""
    torch.manual_seed(0)


def as_theirs(head: Tensor, stride: int) -> Tensor:
    """Rows of the linear layer in the order of nn.PixelShuffle: (channel, row, column), ours (row, column, channel)."""
    return head.unflatten(0, (stride, stride, 3)).movedim(2, 0).flatten(0, 2)


def give(model: Any, objective: SimMIM, names: list[tuple[str, str]]) -> None:
    """Our weights to a transformers model."""
    ours, stride = objective.state_dict(), objective.encoder.stride[0]
    tensors = {"decoder.0.weight": as_theirs(ours.pop("head.weight"), stride)[:, :, None, None]}
    tensors["decoder.0.bias"] = as_theirs(ours.pop("head.bias"), stride)
    tensors[f"{model.base_model_prefix}.embeddings.mask_token"] = ours.pop("mask_token")
    for name, tensor in ours.items():
        for mine, other in names:
            name = name.replace(mine, other)
        split = "qkv" in name
        parts = zip("qkv", tensor.chunk(3), strict=True) if split else [("", tensor)]
        tensors |= {name.replace("qkv", f"{part}_proj") if split else name: piece for part, piece in parts}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and not missing


def compare(model: Any, encoder: ViT | Swin, names: list[tuple[str, str]]) -> None:
    """Pixels, and losses over ten steps, so that gradients are compared, too."""
    objective = shaken(SimMIM(encoder, unit=16))
    give(model.eval(), objective, names)
    optimizers = [torch.optim.SGD(each.parameters(), 0.05) for each in (objective, model)]
    for step in range(10):
        hidden = objective.hide(torch.tensor([3, 5]) + 2 * step)
        outcome = objective.compare(IMAGES, hidden)
        theirs = model(pixel_values=IMAGES, bool_masked_pos=hidden)
        drawn = objective.pixels(outcome.prediction, IMAGES)
        torch.testing.assert_close(drawn, theirs.reconstruction, rtol=1e-4, atol=5e-5 * (step + 1))  # they drift apart
        torch.testing.assert_close(outcome.loss, theirs.loss, rtol=1e-4, atol=0)
        for optimizer, loss in zip(optimizers, (outcome.loss, theirs.loss), strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def tiny_vit() -> ViT:
    return ViT("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3)


def tiny_swin() -> Swin:
    return Swin("swin_tiny_patch4_window7_224", img_size=32, **SWIN_SIZES)


@pytest.mark.slow
def test_a_vit_is_that_of_transformers():
    from transformers import ViTConfig, ViTForMaskedImageModeling

    size: dict[str, Any] = {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 192,
    }
    config = ViTConfig(image_size=32, patch_size=8, encoder_stride=8, layer_norm_eps=1e-6, **size)
    compare(ViTForMaskedImageModeling(config), tiny_vit(), COMMON + VIT)


@pytest.mark.slow
def test_a_swin_is_that_of_transformers():
    from transformers import SwinConfig, SwinForMaskedImageModeling

    config = SwinConfig(image_size=32, encoder_stride=8, drop_path_rate=0.0, **SWIN_SIZES)
    compare(SwinForMaskedImageModeling(config), tiny_swin(), COMMON + SWIN)


GOLDEN = {
    "vit": [0.80554, 0.80443, 0.8008, 0.79854, 0.79343, 0.79187, 0.78694, 0.78862, 0.78367, 0.78563],
    "swin": [0.79991, 0.80043, 0.80081, 0.79737, 0.79209, 0.79732, 0.80148, 0.79478, 0.79486, 0.79934],
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_ten_training_steps(kind: str):
    """The losses of this implementation, whose arithmetic is transformers': a change is seen here."""
    torch.manual_seed(0)
    size = 64 if kind == "vit" else 32
    images = torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(0))
    narrow: dict[str, Any] = {"embed_dim": 48, "depth": 1, "num_heads": 3}
    encoder = ViT("vit_tiny_patch16_224", img_size=64, patch_size=8, **narrow) if kind == "vit" else tiny_swin()
    assert ten_losses(SimMIM(encoder, unit=16), images, (0.9, 0.999)) == pytest.approx(GOLDEN[kind], rel=1e-3)


@pytest.mark.parametrize(
    ("encoder", "spared"),
    [(tiny_vit, {"encoder.model.cls_token", "encoder.model.pos_embed"}), (tiny_swin, {"mask_token"})],
)
def test_what_does_not_decay_beside_biases_and_norms(encoder: Callable[[], ViT | Swin], spared: set[str]):
    """As simmim.py, vision_transformer.py and swin_transformer.py name them."""
    objective = SimMIM(encoder(), unit=16)
    names = {parameter: name for name, parameter in objective.named_parameters()}
    groups = parameter_groups(objective, 0.05, objective.no_decay)
    decays = {names[parameter] for group in groups if group["weight_decay"] for parameter in group["params"]}
    assert {name for name, p in objective.named_parameters() if p.ndim > 1} - decays == spared


def test_the_papers_vit_has_relative_positions():
    """One table for all blocks and none of places, as BEiT's encoder (vit_base__800ep.yaml)."""
    torch.manual_seed(0)
    objective: Any = SimMIM(BEiTEncoder(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3), unit=16)
    outcome = objective(IMAGES, torch.tensor([3, 5]))
    outcome.loss.backward()
    blocks = objective.encoder.model.blocks
    assert blocks[0].attn.relative_position_bias_table is blocks[1].attn.relative_position_bias_table
    assert blocks[0].attn.relative_position_bias_table.grad.any() and objective.encoder.model.pos_embed is None
    moved = torch.where(outcome.hidden.reshape(2, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3), 9.0, IMAGES)
    torch.testing.assert_close(objective(moved, torch.tensor([3, 5])).prediction, outcome.prediction)


def test_a_swin_is_pretrained_without_stochastic_depth():
    """Which timm's have by default."""
    assert not [part for part in tiny_swin().modules() if isinstance(part, DropPath)]


def test_whole_units_are_hidden():
    hidden = unit_mask(torch.arange(50), (8, 12), (2, 3), 6).reshape(50, 4, 2, 4, 3)
    units = hidden.any(dim=4).any(dim=2)
    assert torch.equal(units, hidden.all(dim=4).all(dim=2)) and units.flatten(1).sum(dim=1).tolist() == [10] * 50
    assert (units.float().mean(dim=0) - 10 / 16).abs().max() < 0.25 and len(units.unique(dim=0)) > 40


def test_as_many_units_are_hidden_as_in_the_original():
    encoder = ViT("vit_tiny_patch16_224", img_size=40, patch_size=8, embed_dim=12, depth=1, num_heads=1)
    hidden = SimMIM(encoder, 0.8, unit=8)(torch.zeros(3, 3, 40, 40), torch.arange(3)).hidden
    assert hidden.sum(dim=1).tolist() == [20] * 3, "of 25; as MAE rounds it would be 21"


@pytest.mark.parametrize(
    ("unit", "key"), [(12, "objective.unit"), (0, "objective.unit"), (-16, "objective.unit"), (24, "encoder.img_size")]
)
def test_a_unit_that_does_not_fit_is_refused(unit: int, key: str):
    encoder = ViT("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=48, depth=1, num_heads=3)
    with raises(key):
        SimMIM(encoder, unit=unit)
