"""Contrastive MAE: the loss of a second implementation, views by their seeds, reconstruction as in MAE."""

import math

import pytest
import torch

from mae_kit import MAE, ContrastiveMAE, ViT
from mae_kit.objectives.contrastive_mae import cropped, info_nce, recolored

SEEDS = torch.tensor([5, -7, 2**50, 0])


def tiny(contrast: float = 0.1) -> ContrastiveMAE:
    torch.manual_seed(0)
    vit = ViT("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3)
    return ContrastiveMAE(vit, decoder_dim=32, decoder_depth=1, decoder_heads=2, contrast=contrast)


def test_info_nce_is_that_of_two_loops():
    one, two = torch.randn(2, 5, 7, dtype=torch.float64)
    views = [vector / vector.norm() for vector in (*one, *two)]
    losses = []
    for i, view in enumerate(views):
        scores = {j: math.exp(float(view @ other) / 0.2) for j, other in enumerate(views) if j != i}
        losses.append(-math.log(scores[(i + 5) % 10] / sum(scores.values())))
    assert float(info_nce(one, two, 0.2)) == pytest.approx(sum(losses) / 10, rel=1e-5)


def test_it_falls_when_the_views_of_an_image_agree():
    vectors = torch.randn(6, 16)
    assert info_nce(vectors, vectors, 0.1) < info_nce(vectors, vectors.roll(1, 0), 0.1)


def test_the_reconstruction_is_mae():
    images, mine = torch.randn(4, 3, 32, 32), tiny(contrast=0.0)
    mae = MAE(mine.encoder, 0.5, decoder_dim=32, decoder_depth=1, decoder_heads=2)
    mae.decoder.load_state_dict(mine.decoder.state_dict())
    own, theirs = mine(images, SEEDS), mae(images, SEEDS)
    assert torch.equal(own.hidden, theirs.hidden) and torch.equal(own.prediction, theirs.prediction)
    assert torch.equal(own.loss, theirs.loss) and torch.equal(own.logs["reconstruction"], theirs.loss)


def test_the_loss_is_the_weighted_sum():
    outcome = tiny(contrast=0.25)(torch.randn(4, 3, 32, 32), SEEDS)
    assert outcome.loss == outcome.logs["reconstruction"] + 0.25 * outcome.logs["contrast"]


def test_a_view_is_a_function_of_its_image_and_seed():
    images, mae = torch.randn(4, 5, 32, 32), tiny()
    views = mae.second_view(images, SEEDS)
    for i in range(4):
        torch.testing.assert_close(mae.second_view(images[i : i + 1], SEEDS[i : i + 1])[0], views[i])
    assert not torch.equal(views, mae.second_view(images, SEEDS + 1))


def test_a_crop_shows_its_part_of_the_image():
    ramp = torch.arange(32).float().expand(1, 1, 32, 32)  # a pixel's value is its column
    area, aspect, x, y = 0.25, 0.5, 0.0, 1.0  # a square of half the side, at the left
    numbers = torch.tensor([[area, aspect, x, y, 1.0]])
    view = cropped(ramp, numbers, smallest=0.0)[0, 0]
    torch.testing.assert_close(view[9, 1:-1], torch.arange(32)[1:-1] / 2 - 0.25)
    mirrored = cropped(ramp, torch.tensor([[area, aspect, x, y, 0.0]]), smallest=0.0)[0, 0]
    torch.testing.assert_close(mirrored, view.flip(-1))
    whole = cropped(ramp, torch.tensor([[1.0, 0.5, 0.3, 0.3, 1.0]]), smallest=0.0)
    torch.testing.assert_close(whole, ramp)


def test_colors_change_by_the_strength():
    images = torch.randn(2, 4, 8, 8)
    assert recolored(images, torch.rand(2, 7), 0.0) is images
    middle = torch.full((2, 7), 0.5)
    middle[:, 0] = 2 / 3  # of 1.5: as saturated as before
    torch.testing.assert_close(recolored(images, middle, 0.4), images)
    gray = recolored(images, torch.cat([torch.zeros(2, 1), middle[:, 1:]], dim=1), 0.4)
    torch.testing.assert_close(gray, images.mean(dim=1, keepdim=True).expand_as(images))
    brighter = recolored(images, torch.cat([middle[:, :2], torch.ones(2, 1), middle[:, 3:]], dim=1), 0.4)
    torch.testing.assert_close(brighter, images + 0.4)
