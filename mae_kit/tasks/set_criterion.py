"""The loss of a set of boxes: each true box is matched to one prediction, all others are to be no object."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torchvision.ops import box_convert, generalized_box_iou, sigmoid_focal_loss

from mae_kit.errors import UserError

ALPHA, GAMMA = 0.25, 2.0  # of the focal loss (arXiv 1708.02002)
CLASS, L1, GIOU = 1.0, 5.0, 2.0  # weights of DETR (arXiv 2005.12872), of costs and of losses
FOCAL = 2.0  # the weight of classes by the focal loss (Deformable DETR, arXiv 2010.04159)


class Found(NamedTuple):
    """What a detector says of a batch.

    Attributes:
        logits: Of the classes, and of no object behind them where softmax makes them probabilities.
        boxes: Center, width and height, in 0..1 of the image.
        repeat: How many predictions each true box is matched to.
    """

    logits: Float[Tensor, "b q _"]
    boxes: Float[Tensor, "b q 4"]
    repeat: int = 1


class Truth(NamedTuple):
    """The objects of one image: boxes as in `Found`, and classes."""

    boxes: Float[Tensor, "m 4"]
    classes: Int64[Tensor, " m"]


Pairs = tuple[Int64[Tensor, " p"], Int64[Tensor, " p"]]
"""Of one image the predictions that are matched, and the true boxes that they are matched to."""


class SetCriterion(nn.Module):
    """Hungarian matching, then the loss of classes, the L1 and the generalized IoU loss of boxes (DETR).

    Args:
        classes: Number of classes.
        focal: Sigmoid and focal loss; otherwise softmax over the classes and no object.
        no_object: Weight of no object in the softmax's cross-entropy.
    """

    weight: Tensor

    def __init__(self, classes: int, focal: bool = False, no_object: float = 0.1):
        super().__init__()
        self.classes, self.focal = classes, focal
        self.register_buffer("weight", torch.tensor([1.0] * classes + [no_object]), persistent=False)

    def forward(self, layers: Sequence[Found], truth: Sequence[Truth]) -> dict[str, Tensor]:
        """The sum over the layers of a detector, under `loss`; of the last layer also its three parts, not weighted."""
        objects = _mean_over_ranks(sum(len(one.classes) for one in truth), layers[0].logits.device)
        exact = (one._replace(logits=one.logits.float(), boxes=one.boxes.float()) for one in layers)
        parts = [self._parts(found, truth, objects * found.repeat) for found in exact]
        class_weight = FOCAL if self.focal else CLASS
        loss = torch.stack([class_weight * one + L1 * two + GIOU * three for one, two, three in parts]).sum()
        return {"loss": loss, **dict(zip(("class_loss", "l1_loss", "giou_loss"), parts[-1], strict=True))}

    def _parts(self, found: Found, truth: Sequence[Truth], objects: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pairs = self.match(found, truth)
        images = torch.cat([torch.full_like(query, image) for image, (query, _) in enumerate(pairs)])
        queries = torch.cat([query for query, _ in pairs])
        labels = torch.cat([one.classes[true] for one, (_, true) in zip(truth, pairs, strict=True)])
        boxes = torch.cat([one.boxes[true] for one, (_, true) in zip(truth, pairs, strict=True)])
        aims = torch.full(found.logits.shape[:2], self.classes, device=labels.device)
        aims[images, queries] = labels
        close = found.boxes[images, queries]
        overlap = generalized_box_iou(_corners(close), _corners(boxes)).diagonal()
        return (
            self._class_loss(found.logits, aims, objects),
            F.l1_loss(close, boxes, reduction="sum") / objects,
            (1 - overlap).sum() / objects,
        )

    def _class_loss(self, logits: Float[Tensor, "b q _"], aims: Int64[Tensor, "b q"], objects: Tensor) -> Tensor:
        if not self.focal:
            return F.cross_entropy(logits.transpose(1, 2), aims, self.weight)
        hot = F.one_hot(aims, self.classes + 1)[..., :-1].to(logits.dtype)
        return sigmoid_focal_loss(logits, hot, ALPHA, GAMMA, reduction="sum") / objects

    @torch.no_grad()
    def match(self, found: Found, truth: Sequence[Truth]) -> list[Pairs]:
        """Of each image the cheapest pairs of a prediction and a true box, as many as there are of the fewer."""
        return [
            self._match_one(*image, found.repeat)
            for image in zip(found.logits.float(), found.boxes.float(), truth, strict=True)
        ]

    def _match_one(self, logits: Tensor, boxes: Tensor, truth: Truth, repeat: int) -> Pairs:
        if self.focal:
            p = logits.sigmoid()
            yes, no = (1 - p) ** GAMMA * -(p + 1e-8).log(), p**GAMMA * -(1 - p + 1e-8).log()
            classes = FOCAL * (ALPHA * yes - (1 - ALPHA) * no)
        else:
            classes = -CLASS * logits.softmax(dim=-1)
        overlap = generalized_box_iou(_corners(boxes), _corners(truth.boxes))
        cost = classes[:, truth.classes] + L1 * torch.cdist(boxes, truth.boxes, p=1) - GIOU * overlap
        cost = torch.nan_to_num(cost, nan=1e6)  # the loss is NaN then, which the training refuses
        query, true = linear_sum_assignment(cost.repeat(1, repeat).cpu().numpy())
        true = true % max(1, len(truth.classes))
        return torch.from_numpy(query).to(boxes.device), torch.from_numpy(true).to(boxes.device)


def linear_sum_assignment(cost):  # type: ignore[no-untyped-def]
    """scipy's, or one line that says how to get it."""
    try:
        from scipy.optimize import linear_sum_assignment as solve
    except ImportError as error:
        raise UserError("detection.scipy", "detection needs scipy", 'pip install "mae_kit[detection]"') from error
    return solve(cost)


def _corners(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    return box_convert(boxes, "cxcywh", "xyxy")


def _mean_over_ranks(objects: int, device: torch.device) -> Float[Tensor, ""]:
    """Objects of a batch, the mean over the processes that train together; at least 1."""
    count = torch.tensor(float(objects), device=device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count = count / torch.distributed.get_world_size()
    return count.clamp(min=1)
