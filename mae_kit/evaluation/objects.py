"""Scores of predicted boxes: average precision of objects in held-out images, with an interval over the images."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mae_kit.evaluation.average_precision import Precision, average_precision
from mae_kit.evaluation.bootstrap import MAP50, Gain, Score
from mae_kit.evaluation.metrics import macro

ENDS = 2.5, 97.5  # percentiles
DRAWS = 100  # COCO's evaluation of a resampling takes a second or so for a thousand images


class FoundObjects(NamedTuple):
    """Boxes and objects of held-out images.

    Attributes:
        found: Image, edges, class and probability of each box.
        true: Image, edges and class of each object, and 1 for a crowd.
        images: All of them.
        classes: Number of classes.
    """

    found: Float[Tensor, "n 7"]
    true: Float[Tensor, "m 7"]
    images: Int64[Tensor, " i"]
    classes: int

    @property
    def samples(self) -> int:
        return len(self.images)

    def score(self) -> Score:
        """Mean average precision at an IoU of 0.5 over the classes that occur."""
        whole = self.precision(np.arange(self.samples))
        low, high = np.percentile([macro(self.precision(rows).ap50) for rows in self._draws()], ENDS)
        columns = whole._asdict()
        return Score(MAP50, float(macro(whole.ap50)), float(low), float(high), of_classes=columns)

    def gain(self, theirs: "FoundObjects") -> Gain:
        """How much larger the mean average precision at an IoU of 0.5 is; bootstrap over the same images."""
        rows = [np.arange(self.samples), *self._draws()]
        gains = [float(macro(self.precision(each).ap50) - macro(theirs.precision(each).ap50)) for each in rows]
        low, high = np.percentile(gains[1:], ENDS)
        return Gain(gains[0], float(low), float(high))

    def precision(self, rows: Int64[np.ndarray, " q"]) -> Precision:
        """That of some images, each as often as it is named."""
        found, true = (_renumbered(boxes, self.images, rows) for boxes in (self.found, self.true))
        return average_precision(found, true, torch.arange(len(rows)), self.classes)

    def _draws(self) -> list[np.ndarray]:
        random = np.random.default_rng(0)
        return [random.integers(self.samples, size=self.samples) for _ in range(DRAWS)]


def _renumbered(boxes: Float[Tensor, "n 7"], images: Tensor, rows: np.ndarray) -> Float[Tensor, "_ 7"]:
    """Boxes of these images, whose numbers are their places among the rows."""
    groups = {image: boxes[boxes[:, 0] == image, 1:] for image in set(images[rows].tolist())}
    parts = [groups[image] for image in images[rows].tolist()]
    numbers = torch.cat([torch.full((len(part), 1), float(place)) for place, part in enumerate(parts)])
    return torch.cat([numbers, torch.cat(parts)], dim=1)
