"""Masked patch prediction: what becomes of corrupted patches, and what has to be predicted."""

import itertools
from typing import Any

import pytest
import torch
from jaxtyping import Float
from support.errors import raises
from support.training_steps import ten_losses
from torch import Tensor

from mae_kit.encoders import ViT
from mae_kit.encoders.patches import patchify
from mae_kit.objectives import MaskedPatch
from mae_kit.objectives.masking import random_mask
from mae_kit.objectives.targets import color_classes, colors_of

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def make(target: Any = "color", **changed: Any) -> MaskedPatch:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 1, "num_heads": 3} | changed
    objective = MaskedPatch(ViT("vit_tiny_patch16_224", **arguments), target=target)
    channels = objective.encoder.channels
    objective.set_statistics(MEAN[:channels] if channels <= 3 else [0.5] * channels, [0.25] * channels)
    return objective


def test_of_the_corrupted_patches_most_become_the_token_some_another_patch_and_some_stay():
    objective, keys = make(), torch.arange(2000)
    hidden = random_mask(keys, (4, 4), 0.5)
    embedded = torch.arange(16.0)[None, :, None].expand(2000, -1, 48)  # each says where it was
    with torch.no_grad():
        objective.mask_token.fill_(-1)
        after = objective.corrupt(embedded, hidden, keys)[:, :, 0]
    assert torch.equal(after[~hidden], embedded[:, :, 0][~hidden])
    token, same = (after == -1)[hidden], (after == embedded[:, :, 0])[hidden]
    shares = [float(part.float().mean()) for part in (token, same, ~token & ~same)]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    strangers = after[hidden][~token & ~same]
    assert torch.bincount(strangers.long(), minlength=16).min() > 0, "any patch may stand in"


@pytest.mark.parametrize(
    ("target", "golden"),
    [
        ("color", [6.4426, 5.6472, 5.349, 5.1614, 4.8997, 4.6445, 4.3784, 4.1422, 3.8911, 3.6126]),
        ("mosaic", [6.2473, 6.1124, 5.8373, 5.6088, 5.3826, 5.1362, 4.8977, 4.6416, 4.385, 4.1411]),
        ("pixels", [0.36889, 0.29754, 0.20136, 0.14252, 0.10698, 0.0927, 0.091812, 0.098268, 0.10097, 0.099924]),
    ],
)
def test_ten_training_steps(target: str, golden: list[float]):
    """The losses of this implementation: a change of arithmetic is seen here."""
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert ten_losses(make(target), images, (0.9, 0.999)) == pytest.approx(golden, rel=1e-3)


def test_classes_and_colors_go_there_and_back():
    classes = torch.arange(512)[None, :, None]
    assert torch.equal(color_classes(colors_of(classes, 3)), classes)
    corners = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))[None, :, None]
    assert color_classes(corners).flatten().tolist() == [0, 7, 56, 63, 448, 455, 504, 511]


def brute_force(colors: Float[Tensor, "c h w"], row: int, column: int, side: int) -> int:
    """The class of one cell, from its pixels."""
    levels = [min(int(8 * float(part[row : row + side, column : column + side].mean())), 7) for part in colors]
    return levels[0] * 64 + levels[1] * 8 + levels[2]


@pytest.mark.parametrize(("target", "side"), [("color", 8), ("mosaic", 2)])
def test_classes_are_mean_colors_of_the_image_before_it_was_normalized(target: str, side: int):
    objective = make(target)
    colors = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    found = objective.classes(objective.normalize(colors))[0]
    places = itertools.product(range(0, 32, 8), range(0, 32, 8))
    for patch, (row, column) in zip(found, places, strict=True):
        cells = itertools.product(range(row, row + 8, side), range(column, column + 8, side))
        assert patch.tolist() == [brute_force(colors[0], *cell, side) for cell in cells]


def test_a_sure_and_right_prediction_costs_nothing_and_looks_like_the_image():
    objective = make("mosaic")
    cells = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3)).mul(8).floor().add(0.5).div(8)
    images = objective.normalize(cells.repeat_interleave(2, 2).repeat_interleave(2, 3))
    sure = 50 * torch.nn.functional.one_hot(objective.classes(images), 512).float().flatten(2)
    outcome = objective._classify(sure, objective.classes(images), torch.ones(2, 16, dtype=torch.bool))
    assert outcome.loss < 1e-6 and outcome.logs["accuracy"] == 1
    torch.testing.assert_close(objective.pixels(sure, images), images)
    torch.testing.assert_close(objective.target_pixels(images), images)


def test_pixels_are_the_whole_patch():
    objective = make("pixels")
    images = torch.randn(2, 3, 32, 32)
    outcome = objective(images, torch.tensor([1, 2]))
    error = (outcome.prediction - patchify(images, (8, 8)))[outcome.hidden].square().mean()
    torch.testing.assert_close(outcome.loss, error)


@pytest.mark.parametrize(("target", "share"), [("color", 0.6), ("mosaic", 0.7), ("pixels", 0.3)])
def test_it_learns_an_image_by_heart(target: str, share: float):
    objective, keys = make(target), torch.arange(8)
    image = torch.rand(1, 3, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    images = objective.normalize(image.expand(8, -1, -1, -1))
    optimizer = torch.optim.Adam(objective.parameters(), 5e-3)
    losses = []
    for step in range(15):
        optimizer.zero_grad()
        loss = objective(images, keys + 8 * step).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < share * losses[0]


@pytest.mark.parametrize(
    ("target", "changed", "key"),
    [("mosaic", {"patch_size": 2}, "objective.target"), ("color", {"in_chans": 5}, "objective.target")],
)
def test_a_target_that_cannot_be_is_refused(target: str, changed: dict[str, int], key: str):
    with raises(key):
        make(target, **changed)
