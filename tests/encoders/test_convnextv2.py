"""ConvNeXt V2 with hidden cells: the paper's masked convolutions written out, and what must not leak."""

from typing import Any

import pytest
import torch
from support.errors import raises
from support.tiny_models import shaken
from torch import Tensor

from mae_kit.encoders import ConvNeXtV2
from mae_kit.objectives.masking import random_mask

SIZES: dict[str, Any] = {"depths": [1, 2, 2, 1], "dims": [8, 16, 24, 32]}
KINDS = {
    "linear layers": ("convnextv2_tiny", {"img_size": 96}),
    "convolutions for layers": ("convnextv2_atto", {"img_size": 96}),
    "dilated": ("convnextv2_atto", {"img_size": 48, "output_stride": 16}),
    "small kernel": ("convnextv2_atto", {"img_size": 48, "output_stride": 16, "kernel_sizes": [7, 7, 7, 3]}),
    "fine stem": ("convnextv2_tiny", {"img_size": [24, 32], "patch_size": 1}),
}
KEYS = torch.tensor([1, 2])


@pytest.fixture(params=KINDS)
def encoder(request: pytest.FixtureRequest) -> ConvNeXtV2:
    name, arguments = KINDS[request.param]
    return shaken(ConvNeXtV2(name, **arguments, **SIZES))


def images_for(encoder: ConvNeXtV2) -> Tensor:
    return torch.randn(2, 3, *encoder.image_size, generator=torch.Generator().manual_seed(0))


def response_normalized(grn: Any, x: Tensor, visible: Tensor) -> Tensor:
    """Over the visible positions of each sample, channels first."""
    size = (x * visible).square().sum(dim=(2, 3), keepdim=True).sqrt()
    relative = size / (size.mean(dim=1, keepdim=True) + 1e-6)
    return grn.weight[:, None, None] * x * relative + grn.bias[:, None, None] + x


def layer(module: Any, x: Tensor) -> Tensor:
    return module(x) if isinstance(module, torch.nn.Conv2d) else module(x.movedim(1, 3)).movedim(3, 1)


def written_out(encoder: ConvNeXtV2, images: Tensor, hidden: Tensor) -> Tensor:
    """As in the JAX code of the original's TRAINING.md: everything dense, the mask multiplied before and behind."""

    def masked(x: Tensor) -> Tensor:
        return x * visible(x)

    def visible(x: Tensor) -> Tensor:
        at = (~hidden).float().unflatten(1, encoder.cells)[:, None]
        return torch.nn.functional.interpolate(at, size=x.shape[2:])

    model: Any = encoder.model
    x = masked(model.stem(images))
    for stage in model.stages:
        for part in stage.downsample.children():
            x = masked(part(x))
        for block in stage.blocks:
            y = masked(block.conv_dw(masked(x)))
            y = block.norm(y) if block.use_conv_mlp else block.norm(y.movedim(1, 3)).movedim(3, 1)
            y = torch.nn.functional.gelu(layer(block.mlp.fc1, y))
            x = x + layer(block.mlp.fc2, response_normalized(block.mlp.grn, y, visible(y)))
    return masked(x).flatten(2).mT


def test_it_is_the_masked_dense_network_of_the_paper(encoder: ConvNeXtV2):
    images, hidden = images_for(encoder), random_mask(KEYS, encoder.cells, 0.6)
    with torch.no_grad():
        found = encoder.zero(images, hidden)
        torch.testing.assert_close(found, written_out(encoder, images, hidden), rtol=1e-4, atol=1e-4)
        unmasked = encoder(images)
    assert not found[hidden].any() and found[~hidden].any(dim=-1).all()
    assert (found - unmasked)[~hidden].abs().max() > 0.1, "neighbors that are hidden are missed"


def test_no_gradient_reaches_hidden_pixels_or_another_sample(encoder: ConvNeXtV2):
    images, hidden = images_for(encoder).requires_grad_(), random_mask(KEYS, encoder.cells, 0.6)
    encoder.zero(images, hidden)[0].square().sum().backward()
    assert images.grad is not None and not images.grad[1].any()
    rows, columns = encoder.stride
    at = hidden[0].unflatten(0, encoder.cells).repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    assert not images.grad[0][:, at].any() and images.grad[0][:, ~at].any(dim=0).all()


def test_a_neighbor_in_the_batch_changes_nothing_to_the_bit(encoder: ConvNeXtV2):
    images, hidden = images_for(encoder), random_mask(KEYS, encoder.cells, 0.6)
    other = torch.stack([images[0], 100 * images[1].flip(0)])
    with torch.no_grad():
        assert torch.equal(encoder.zero(images, hidden)[0], encoder.zero(other, hidden)[0])


def test_in_a_small_dilated_map_a_kernel_of_three_is_one_of_seven():
    large, small = (
        ConvNeXtV2("convnextv2_atto", 64, output_stride=16, kernel_sizes=[7, 7, 7, side], **SIZES) for side in (7, 3)
    )
    tensors = large.model.state_dict()
    name = "stages.3.blocks.0.conv_dw.weight"
    small.model.load_state_dict(tensors | {name: tensors[name][:, :, 2:5, 2:5]})
    images = images_for(large)
    torch.testing.assert_close(small(images), large(images), rtol=1e-4, atol=1e-5)


def test_kernels_without_a_middle_are_refused():
    with raises("encoder.kernel_sizes"):
        ConvNeXtV2("convnextv2_atto", img_size=64, kernel_sizes=[7, 7, 6, 3])


def test_the_norm_behind_the_pooling_is_not_trained(encoder: ConvNeXtV2):
    frozen = [name for name, parameter in encoder.model.named_parameters() if not parameter.requires_grad]
    assert frozen == ["head.norm.weight", "head.norm.bias"]
