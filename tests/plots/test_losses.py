"""The loss of each patch against the objective's own."""

import pytest
import torch
from support.untrained_run import make_mae

from mae_kit.objectives.masking import random_mask
from mae_kit.plots.losses import loss_map, patch_losses


@pytest.mark.parametrize("norm_pix_loss", [True, False])
@torch.no_grad()
def test_the_mean_over_hidden_patches_is_the_loss(norm_pix_loss: bool):
    mae, images = make_mae(norm_pix_loss=norm_pix_loss), torch.randn(3, 3, 32, 32)
    hidden = random_mask(torch.arange(3), (4, 4), 0.75)
    losses = patch_losses(mae, images, hidden)
    assert torch.equal(losses.isnan(), ~hidden)
    torch.testing.assert_close(losses.nanmean(), mae.compare(images, hidden).loss)


@torch.no_grad()
def test_a_patch_that_is_far_off_has_the_loss():
    """Plain pixels and a decoder that always says 0: the loss of a patch is its mean square."""
    mae, images = make_mae(norm_pix_loss=False), torch.zeros(1, 3, 32, 32)
    torch.nn.init.zeros_(mae.decoder.pred.weight)
    torch.nn.init.zeros_(mae.decoder.pred.bias)
    images[:, :, 8:16, 24:] = 3.0
    hidden = torch.ones(1, 16, dtype=torch.bool)
    hidden[0, 0] = False
    losses = patch_losses(mae, images, hidden)[0]
    assert losses[7] == 9 and losses.nan_to_num().sum() == 9


@torch.no_grad()
def test_a_map_is_the_mean_over_the_masks_that_hide_the_patch():
    mae, images = make_mae(), torch.randn(2, 3, 32, 32)
    first, second = (random_mask(torch.tensor([seed, seed + 1]), (4, 4), 0.5) for seed in (0, 5))
    one, other = patch_losses(mae, images, first), patch_losses(mae, images, second)
    found = loss_map(mae, images, [first, second])
    both, neither = first & second, ~(first | second)
    assert both.any() and neither.any()
    torch.testing.assert_close(found[both], (one[both] + other[both]) / 2)
    torch.testing.assert_close(found[first & ~second], one[first & ~second])
    assert torch.equal(found.isnan(), neither)
