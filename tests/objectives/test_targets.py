"""Histograms of oriented gradients, against scikit-image and scipy; pixels there and back; means of what is hidden."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from skimage.feature import hog

from mae_kit.encoders.patches import patchify
from mae_kit.objectives.targets import gradients, hidden_mean, orientation_histograms, patch_targets, predicted_images

IMAGES = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def differences(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the two neighbors, zero at the border: the gradients that scikit-image takes."""
    down, right = torch.zeros_like(images), torch.zeros_like(images)
    down[:, :, 1:-1] = images[:, :, 2:] - images[:, :, :-2]
    right[..., 1:-1] = images[..., 2:] - images[..., :-2]
    return down, right


@pytest.mark.parametrize("cell", [4, 8])
def test_the_histograms_are_those_of_scikit_image(cell: int):
    """Of the transposed image: its angles are counted from the other axis."""
    ours = orientation_histograms(*differences(IMAGES), cell)
    assert ours.shape == (2, 3, 32 // cell, 48 // cell, 9)
    for image, found in zip(IMAGES.flatten(0, 1), ours.flatten(0, 1), strict=True):
        expected = hog(image.T.numpy(), 9, (cell, cell), (1, 1), "L2", feature_vector=False)[:, :, 0, 0]
        torch.testing.assert_close(found.transpose(0, 1), torch.from_numpy(expected), rtol=1e-6, atol=1e-6)


def test_the_gradients_are_those_of_scipy():
    down, right = gradients(IMAGES)
    for found, axis in ((down, 0), (right, 1)):
        expected = np.stack([ndimage.sobel(image.numpy(), axis, mode="mirror") for image in IMAGES.flatten(0, 1)])
        torch.testing.assert_close(found.flatten(0, 1), torch.from_numpy(expected))


def test_an_edge_has_one_orientation_whatever_its_sign_and_contrast():
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    for (down, right), expected in (((0, 1), 4), ((1, 0), 0), ((1, 1), 2), ((-1, 1), 6)):
        ramp = down * y + right * x
        inner = orientation_histograms(*gradients(torch.stack([ramp, 5 - 3 * ramp])[None]), 8)[0, :, 1, 1]
        assert inner.tolist() == [[float(k == expected) for k in range(9)]] * 2


@pytest.mark.parametrize("degrees", [1.0, 19.0, 21.0, 79.0, 81.0, 101.0, 179.0])
def test_the_bins_are_those_of_slowfast(degrees: float):
    """Its operators.py: kernels [[1, 0, -1], ...] and their transpose, bin floor(atan2(gx, gy) / pi * 9) mod 9."""
    angle = math.radians(degrees)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    ramp = (math.cos(angle) * x + math.sin(angle) * y)[None, None]
    kernel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])[None, None]
    across, along = (F.conv2d(ramp, each)[0, 0, 0, 0].item() for each in (kernel, kernel.mT))
    expected = math.floor(math.atan2(across, along) / math.pi * 9) % 9
    assert orientation_histograms(*gradients(ramp), 8)[0, 0, 0, 0].argmax() == expected


def test_where_nothing_changes_there_is_nothing():
    flat = orientation_histograms(*gradients(torch.full((1, 1, 16, 16), 3.0)), 8)
    assert not flat.any()


@pytest.mark.parametrize("normalized", [True, False])
def test_a_perfect_prediction_is_the_image(normalized: bool):
    images, size = IMAGES.float(), (8, 16)
    target = patch_targets(images, size, normalized)
    assert torch.equal(target, patchify(images, size)) != normalized and target.shape == (2, 12, 384)
    torch.testing.assert_close(predicted_images(target, images, size, normalized), images, rtol=1e-4, atol=1e-4)


def test_a_mean_of_the_hidden_is_over_the_whole_batch_and_nothing_is_0():
    values, hidden = torch.tensor([[1.0, 2.0], [4.0, 9.0]]), torch.tensor([[True, True], [False, True]])
    assert hidden_mean(values, hidden) == 4 and hidden_mean(values, ~hidden & hidden) == 0
