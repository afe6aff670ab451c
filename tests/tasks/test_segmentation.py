"""Segmentation: losses that leave ignored pixels out, scores of known masks."""
# Also tests data/index/masks.py, data/loading/masks.py, reports/predictions.py, tasks/dense.py, tasks/overlays.py,
# tasks/task.py.

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.errors import raises
from torch import nn

from mae_kit.data.decode import IGNORED
from mae_kit.data.loading.batch import Batch
from mae_kit.evaluation.pixels import count_pixels, stack
from mae_kit.tasks.segmentation import Segmentation, SegmentationScores, cross_entropy, dice_loss


class Same(nn.Module):
    """Gives each pixel its own values as logits."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * self.scale


def test_ignored_pixels_change_no_loss():
    logits, masks = torch.randn(2, 4, 6, 6), torch.randint(0, 4, (2, 6, 6))
    masks[:, :2] = IGNORED
    kept = logits[:, :, 2:], masks[:, 2:]
    for loss in (cross_entropy, dice_loss):
        torch.testing.assert_close(loss(logits, masks), loss(*kept))
    torch.testing.assert_close(cross_entropy(*kept), F.cross_entropy(*kept))
    assert cross_entropy(logits, torch.full_like(masks, IGNORED)) == 0
    assert dice_loss(logits, torch.full_like(masks, IGNORED)) == 0


def test_dice_is_nothing_where_all_is_right():
    masks = torch.tensor([[[0, 1], [1, 2]]])
    right = 100.0 * F.one_hot(masks, 3).permute(0, 3, 1, 2)
    assert dice_loss(right, masks) == pytest.approx(0, abs=1e-6)
    assert dice_loss(-right, masks) > 0.7


def test_scores_are_those_of_the_masks():
    truth = torch.tensor([[[0, 0, 1, 1], [0, 2, 1, IGNORED]]], dtype=torch.uint8)
    found = torch.tensor([[[0, 1, 1, 1], [0, 2, 1, 2]]])
    images = F.one_hot(found, 4).permute(0, 3, 1, 2).float()
    ids = torch.tensor([0])
    scores = SegmentationScores([Batch(images, truth, ids, ids, ids, [])], 4, 1, (2, 4), 0.0)
    scores.score(Same(), nn.Identity(), scores.batches)
    result = scores.result(["a", "b", "c", "never"])
    counted = stack([count_pixels(found[0].byte().numpy(), truth[0].numpy(), 4)]).score()
    assert counted.value == pytest.approx(result["miou"])
    assert [row["iou"] for row in result["iou_of_classes"]] == [pytest.approx(2 / 3), 0.75, 1.0, None]
    assert result["miou"] == pytest.approx(np.mean([2 / 3, 0.75, 1.0]))
    assert result["pixel_accuracy"] == pytest.approx(6 / 7)


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("task.dice", {"dice": -1.0}),
        ("task.overlap", {"overlap": 1.0}),
        ("task.scale", {"scale": (2.0, 1.0)}),
        ("task.width", {"width": 0}),
    ],
)
def test_settings_that_cannot_work_are_refused(key: str, given: dict):
    with raises(key):
        Segmentation(**given)
