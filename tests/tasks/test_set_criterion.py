"""The loss of a set of boxes: what is matched, what is left over, and what crowds of objects do."""

import pytest
import torch
from torchvision.ops import box_convert, generalized_box_iou

from mae_kit.tasks.set_criterion import Found, SetCriterion, Truth

TRUTH = Truth(torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.7, 0.7, 0.3, 0.2]]), torch.tensor([1, 0]))
NONE = Truth(torch.empty(0, 4), torch.empty(0, dtype=torch.int64))


def perfect(focal: bool, order: tuple[int, int] = (2, 0)) -> Found:
    """Three queries, two of them exactly the objects of `TRUTH`."""
    boxes, logits = torch.full((1, 3, 4), 0.5), torch.zeros(1, 3, 2 + (not focal)) - 9
    if not focal:
        logits[..., -1] = 9
    for true, query in enumerate(order):
        boxes[0, query] = TRUTH.boxes[true]
        logits[0, query] = -9
        logits[0, query, TRUTH.classes[true]] = 9
    return Found(logits, boxes)


@pytest.mark.parametrize("focal", [False, True])
def test_objects_are_matched_in_any_order_and_what_is_right_costs_nothing(focal: bool):
    criterion = SetCriterion(2, focal)
    for order in ((2, 0), (0, 1), (1, 2)):
        found = perfect(focal, order)
        ((query, true),) = criterion.match(found, [TRUTH])
        assert dict(zip(true.tolist(), query.tolist(), strict=True)) == dict(enumerate(order))
        assert criterion([found], [TRUTH])["loss"] < 1e-3


@pytest.mark.parametrize("focal", [False, True])
def test_an_image_without_objects_teaches_background(focal: bool):
    criterion = SetCriterion(2, focal)
    logits = torch.zeros(1, 3, 2 + (not focal), requires_grad=True)
    boxes = torch.full((1, 3, 4), 0.5, requires_grad=True)
    found = criterion([Found(logits, boxes)], [NONE])
    found["loss"].backward()
    assert found["l1_loss"] == found["giou_loss"] == 0 and torch.isfinite(found["loss"])
    assert logits.grad is not None and (logits.grad[..., :2] > 0).all() and boxes.grad is not None
    assert not boxes.grad.any()


def test_more_objects_than_queries_and_several_queries_an_object():
    criterion = SetCriterion(2)
    many = Truth(TRUTH.boxes.repeat(5000, 1), TRUTH.classes.repeat(5000))
    ((query, true),) = criterion.match(perfect(False), [many])
    assert len(query) == 3 and len(set(true.tolist())) == 3
    found = Found(torch.zeros(1, 9, 2), torch.rand(1, 9, 4), repeat=4)
    ((query, true),) = SetCriterion(2, focal=True).match(found, [TRUTH])
    assert len(set(query.tolist())) == 8 and true.bincount().tolist() == [4, 4]


def test_losses_are_the_mean_over_objects():
    torch.manual_seed(0)
    found, criterion = Found(torch.randn(1, 5, 3), torch.rand(1, 5, 4)), SetCriterion(2)
    ((query, true),) = criterion.match(found, [TRUTH])
    parts = criterion([found], [TRUTH])
    close, right = found.boxes[0, query], TRUTH.boxes[true]
    corners = (box_convert(one, "cxcywh", "xyxy") for one in (close, right))
    torch.testing.assert_close(parts["l1_loss"], (close - right).abs().sum() / 2)
    torch.testing.assert_close(parts["giou_loss"], (1 - generalized_box_iou(*corners).diagonal()).sum() / 2)
    whole = parts["class_loss"] + 5 * parts["l1_loss"] + 2 * parts["giou_loss"]
    torch.testing.assert_close(parts["loss"], whole)


def test_predictions_that_are_not_finite_make_the_loss_so():
    found = Found(torch.full((1, 3, 3), torch.nan), torch.rand(1, 3, 4))
    assert torch.isnan(SetCriterion(2)([found], [TRUTH])["loss"])
