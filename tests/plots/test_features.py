"""Colors of features with planted directions, and neighbors that are known."""

import pytest
import torch

from mae_kit.plots.features import principal_colors, without_places


def planted(dim: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Features [8 50 dim] that vary along three directions, most along the first; and how far along."""
    torch.manual_seed(0)
    directions = torch.linalg.qr(torch.randn(dim, 3) + 5 * torch.eye(dim, 3)).Q
    directions *= directions.gather(0, directions.abs().argmax(dim=0, keepdim=True)).sign()
    along = torch.randn(8, 50, 3) * torch.tensor([9.0, 5.0, 3.0])
    return along @ directions.T + 0.1 * torch.randn(8, 50, dim) + torch.randn(dim), along


def test_red_green_and_blue_are_the_planted_directions():
    tokens, along = planted()
    colors, shares = principal_colors(tokens)
    assert colors.min() == 0 and colors.max() == 1
    for color, true in zip(colors.flatten(0, 1).T, along.flatten(0, 1).T, strict=True):
        assert torch.corrcoef(torch.stack([color, true]))[0, 1] > 0.97
    assert shares == pytest.approx([81 / 115, 25 / 115, 9 / 115], abs=0.05)


def test_the_same_feature_has_the_same_color_in_any_order_of_the_images():
    tokens, _ = planted()
    order = torch.randperm(8)
    torch.testing.assert_close(principal_colors(tokens[order])[0], principal_colors(tokens)[0][order])


def test_the_contrast_does_not_go_to_a_few_patches():
    tokens, _ = planted()
    stretched = principal_colors(tokens)[0][..., 0]
    assert 0.01 < (stretched == 0).float().mean() < 0.03 and 0.01 < (stretched == 1).float().mean() < 0.03


def test_what_is_common_to_a_place_is_taken_off():
    images, places = torch.randn(16, 1, 4), torch.randn(1, 9, 4) * 100
    left = without_places(images + places)
    torch.testing.assert_close(left, (images - images.mean(dim=0)).expand(-1, 9, -1), rtol=0, atol=1e-4)
    assert torch.equal(without_places((images + places)[:15]), (images + places)[:15]), "too few to tell them apart"
