"""Average precision of boxes, as COCO measures it."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mae_kit.errors import UserError

AT_50 = 0  # of the ten thresholds of IoU, from 0.5 to 0.95
ALL, MOST = 0, -1  # of the areas, and of the numbers of detections, which are at most 100 an image


class Precision(NamedTuple):
    """Of each class; NaN where no image shows it.

    Attributes:
        objects: How many there are, without crowds.
        ap: Mean over the thresholds of IoU from 0.5 to 0.95.
        ap50: At an IoU of 0.5.
    """

    objects: Int64[np.ndarray, " k"]
    ap: Float[np.ndarray, " k"]
    ap50: Float[np.ndarray, " k"]


def average_precision(
    found: Float[Tensor, "n 7"], true: Float[Tensor, "m 7"], images: Int64[Tensor, " i"], classes: int
) -> Precision:
    """Measure it by torchmetrics and pycocotools.

    Args:
        found: Image, edges, class and probability of each box.
        true: Image, edges and class of each object, and 1 for a crowd.
        images: All of them; each once.
        classes: Number of classes.

    Raises:
        UserError: `detection.pycocotools`: pycocotools is not installed.
    """
    true = true[true[:, 5] >= 0]
    objects = torch.bincount(true[true[:, 6] == 0, 5].long(), minlength=classes).numpy()
    ap = np.full((2, classes), np.nan)
    if len(true):
        precision, names = _by_coco(_apart(found, images, "scores"), _apart(true, images, "iscrowd"))
        for row, label in enumerate(names):
            values = precision[:, :, row, ALL, MOST]  # thresholds, recalls
            if objects[label]:
                ap[:, label] = float(values.mean()), float(values[AT_50].mean())
    return Precision(objects, *ap)


def _apart(boxes: Tensor, images: Tensor, last: str) -> list[dict[str, Tensor]]:
    """Boxes, labels and another column, image by image."""
    boxes = boxes[boxes[:, 0].argsort(stable=True)]
    ends = torch.searchsorted(boxes[:, 0].contiguous(), images.to(boxes.dtype), right=True)
    starts = torch.searchsorted(boxes[:, 0].contiguous(), images.to(boxes.dtype))
    parts = (boxes[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True))
    kind = torch.float if last == "scores" else torch.long
    return [{"boxes": one[:, 1:5].float(), "labels": one[:, 5].long(), last: one[:, 6].to(kind)} for one in parts]


def _by_coco(found: list[dict[str, Tensor]], true: list[dict[str, Tensor]]) -> tuple[Tensor, list[int]]:
    try:
        from torchmetrics.detection import MeanAveragePrecision

        metric = MeanAveragePrecision(extended_summary=True, backend="pycocotools", sync_on_compute=False)
    except ImportError as error:
        fix = 'pip install "mae_kit[detection]"'
        raise UserError("detection.pycocotools", "average precision needs pycocotools", fix) from error
    metric.warn_on_many_detections = False
    metric.update(found, true)
    whole = metric.compute()
    return whole["precision"], whole["classes"].reshape(-1).tolist()
