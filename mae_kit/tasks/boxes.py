"""A trained detector: boxes in images."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import box_convert

from mae_kit.data.index.boxes import Objects
from mae_kit.data.index.open import Index
from mae_kit.data.index.statistics import share_scale
from mae_kit.data.loading.boxes import BoxedBatches, fitted
from mae_kit.data.loading.decoded import decoded
from mae_kit.data.loading.images import as_rgb
from mae_kit.data.remote.filesystem import Place
from mae_kit.errors import UserError
from mae_kit.evaluation.objects import FoundObjects
from mae_kit.files.durable import replace_text
from mae_kit.tasks.box_pictures import side_by_side
from mae_kit.tasks.detection import BATCH, SHOWN, found_rows, true_rows
from mae_kit.tasks.detector import Detections, Detector, detect, load_detector, probabilities, published
from mae_kit.tasks.files import PredictedFiles
from mae_kit.tasks.trained import Trained

log = logging.getLogger(__name__)

COCO = "detections.json"
LEAST = 0.05  # probability from which on a box is written


class TrainedDetector(Trained):
    """The detector of a fine-tuning; on the GPU if there is one.

    Args:
        path: A run, or its detector.safetensors.

    Raises:
        UserError: As `load_detector`.
    """

    kind = "detector"
    output = "detections"

    def __init__(self, path: Path):
        model, self.record = load_detector(path)
        super().__init__(model, self.record.model)
        self.layout = self.record.detector

    def held_out(self, index: Index, name: str) -> FoundObjects:
        """As of all; objects are found in whole images."""
        classes = self.config.classes
        if not len(index.boxed()) or index.classes != classes:
            what = f"{name} does not have boxes with the classes of the detector ({', '.join(classes[:3])}, ...)"
            raise UserError("data.boxes.of_model", what, "give images with boxes of these classes")
        share_scale(self.config.scale, index)
        found, true, ids = [], [], []
        batches = BoxedBatches(index, index.boxed(), BATCH, self.config.size, self.config.channels)
        for batch in decoded(batches, name):
            assert batch.sizes is not None
            found.append(found_rows(detect(self.model, self.record, batch.images, batch.sizes), batch.ids))
            true.append(true_rows(batch.labels, batch.ids))
            ids.append(batch.ids)
        return FoundObjects(torch.cat(found), torch.cat(true), torch.cat(ids), len(classes))

    def predict(self, images: list[Place], top: int, limit: int | None, out: Path | None, run: Path) -> dict[str, Any]:
        names, results = self.config.classes, list[dict[str, Any]]()
        files = PredictedFiles(out, run)
        coco: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
        coco["categories"] = [{"id": number + 1, "name": label} for number, label in enumerate(names)]
        for name, pixels in self.whole_images(images, limit):
            found = self.in_image(pixels)
            (picture,) = files.of(name, ".boxes.png")
            side_by_side(as_rgb(pixels), [found.above(SHOWN)], names).save(picture)
            shown = [f"{names[label]} {score:.0%}" for label, score in _pairs(found.above(SHOWN))]
            log.info(f"{name}: {len(shown)} objects: {', '.join(shown[:top])}")
            rows = _coco_rows(found.above(LEAST), len(coco["images"]) + 1, len(coco["annotations"]) + 1)
            size = {"width": pixels.shape[2], "height": pixels.shape[1]}
            coco["images"].append({"id": len(coco["images"]) + 1, "file_name": name} | size)
            coco["annotations"] += rows
            results.append({"image": name, "picture": str(picture), "boxes": _described(rows, names)})
        replace_text(files.folder / COCO, json.dumps(coco))
        return {"out": str(files.folder), "coco": str(files.folder / COCO), "predictions": results}

    def in_image(self, pixels: Tensor) -> Detections:
        """Find objects in an image of any size, [c h w]; boxes in its pixels."""
        image, _ = fitted(pixels, Objects.of([], [], []), self.config.size)
        height, width = self.config.size
        padded = nn.functional.pad(image, (0, width - image.shape[2], 0, height - image.shape[1]))
        (found,) = detect(self.model, self.record, padded[None], torch.tensor([image.shape[1:]]))
        factors = torch.tensor([pixels.shape[2] / image.shape[2], pixels.shape[1] / image.shape[1]] * 2)
        most = torch.tensor([pixels.shape[2], pixels.shape[1]] * 2)
        return found._replace(boxes=(found.boxes * factors).minimum(most))

    def published(self) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
        return published(self.model.cpu(), self.record)

    def traced(self) -> tuple[nn.Module, dict[str, Any]]:
        """Gives of each query a box and probabilities, for images that were fitted into one size."""
        meaning = {"activation": "none", "boxes": "left, top, right, bottom in pixels"}
        return BoxesOut(self.model, self.config.size), meaning


class BoxesOut(nn.Module):
    """A detector as other programs run it.

    Args:
        model: The detector.
        size: Height and width of images.
    """

    pixels: Tensor

    def __init__(self, model: Detector, size: tuple[int, int]):
        super().__init__()
        self.model = model
        self.register_buffer("pixels", torch.tensor([size[1], size[0]] * 2, dtype=torch.float32))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b q _"]:
        """Of each query left, top, right and bottom edge in pixels, then the probability of each class."""
        found = self.model(images)[-1]
        boxes = box_convert(found.boxes, "cxcywh", "xyxy").clamp(0, 1) * self.pixels
        return torch.cat([boxes, probabilities(self.model, found.logits)], dim=-1)


def _pairs(found: Detections) -> list[tuple[int, float]]:
    return list(zip(found.classes.tolist(), found.scores.tolist(), strict=True))


def _coco_rows(found: Detections, image: int, first: int) -> list[dict[str, Any]]:
    """Annotations of one image, with a score each."""
    edges = found.boxes.double().numpy()
    boxes = np.concatenate([edges[:, :2], edges[:, 2:] - edges[:, :2]], axis=1).round(2).tolist()
    rows = zip(boxes, found.classes.tolist(), found.scores.tolist(), strict=True)
    return [
        {"id": first + number, "image_id": image, "category_id": label + 1, "score": round(score, 4)}
        | {"bbox": box, "area": round(box[2] * box[3], 2), "iscrowd": 0}
        for number, (box, label, score) in enumerate(rows)
    ]


def _described(rows: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    return [{"class": names[row["category_id"] - 1], "score": row["score"], "bbox": row["bbox"]} for row in rows]
