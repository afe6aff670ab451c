"""Boxes move with their images, to the pixel."""

import numpy as np
import pytest
import torch
from support.boxed_folders import draw, some_boxes

from mae_kit.data.transforms.boxed import VISIBLE, BoxedAugment

PLAIN = [0.0] * 3, [1.0] * 3


def batch(count: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images of 48 x 32 with a red and a blue box at most, padded to 56 x 40."""
    images = torch.zeros(count, 3, 40, 56, dtype=torch.uint8)
    boxes = torch.full((count, 2, 6), -1.0)
    for number in range(count):
        images[number, :, :32, :48] = torch.from_numpy(draw(some_boxes(number))).permute(2, 0, 1)
        for row, (label, *edges) in enumerate(some_boxes(number)):
            boxes[number, row] = torch.tensor([*edges, label, 0])
    return images, boxes, torch.arange(count) * 7919 + 1, torch.tensor([[32, 48]]).repeat(count, 1)


@pytest.mark.parametrize("scale", [(1.0, 1.0), (2.0, 2.0), (0.5, 2.0)])
def test_boxes_frame_what_is_drawn(scale: tuple[float, float]):
    augment = BoxedAugment(*PLAIN, (32, 48), scale)
    images, boxes = augment(*batch())
    slack = 0.01 if scale == (1.0, 1.0) else 1.6
    seen = 0
    for image, rows in zip(images, boxes, strict=True):
        for label in (0, 1):
            strong, weak = image[2 if label else 0], image[0 if label else 2]
            ys, xs = np.nonzero((strong - weak).numpy() > 0.45)
            kept = rows[rows[:, 4] == label]
            if len(kept) and len(xs):
                drawn = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
                np.testing.assert_allclose(kept[0, :4], drawn, atol=slack)
                seen += 1
    assert seen >= 10


def test_the_same_seed_draws_the_same_and_flips_mirror():
    whole = BoxedAugment(*PLAIN, (40, 56))
    images, boxes, seeds, sizes = batch()
    first, again = whole(images, boxes, seeds, sizes), whole(images, boxes, seeds, sizes)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    part = whole(images[3:5], boxes[3:5], seeds[3:5], sizes[3:5])
    assert torch.equal(part[1], first[1][3:5])
    plain = BoxedAugment(*PLAIN, (40, 56), flip=False)(images, boxes, seeds, sizes)
    mirrored = 0
    for ours, other in zip(first[1], plain[1], strict=True):
        if not torch.equal(ours, other):
            flipped = torch.stack([56 - other[:, 2], other[:, 1], 56 - other[:, 0], other[:, 3]], dim=1)
            torch.testing.assert_close(ours[ours[:, 4] >= 0, :4], flipped[other[:, 4] >= 0])
            mirrored += 1
    assert 3 < mirrored < 13


def test_what_a_crop_hardly_shows_is_left_out_and_the_rest_clipped():
    augment = BoxedAugment(*PLAIN, (10, 10), flip=False)
    left, top, zoom = 20.0, 0.0, 1.0
    boxes = torch.tensor([[[12.0, 2, 22, 8, 0, 0], [17.0, 2, 24, 8, 1, 0], [21.0, 1, 25, 9, 1, 1], [-1.0] * 6]])
    maps = torch.tensor([[[zoom, 0, -left], [0, zoom, -top]]])
    (found,) = augment._moved(boxes, maps)
    assert found[:, 4].tolist() == [-1, 1, 1, -1] and VISIBLE == 0.3
    np.testing.assert_allclose(found[1:3, :4], [[0, 2, 4, 8], [1, 1, 5, 9]], atol=1e-4)
    assert found[2, 5] == 1
