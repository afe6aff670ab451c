"""Detection: the boxes and classes of objects, trained on crops and scored on whole images."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchvision.ops import box_convert

from mae_kit.data.index.open import Index
from mae_kit.data.loading.batch import Batch
from mae_kit.data.loading.boxes import BoxedBatches, BoxedTrainBatches
from mae_kit.data.loading.images import as_rgb
from mae_kit.data.loading.loader import Replica
from mae_kit.data.transforms.boxed import BoxedAugment
from mae_kit.data.transforms.paired import padded
from mae_kit.errors import UserError
from mae_kit.evaluation.average_precision import average_precision
from mae_kit.evaluation.metrics import macro
from mae_kit.files.run_folder import RunFolder
from mae_kit.tasks.box_pictures import side_by_side
from mae_kit.tasks.config import Augmentation, FinetuneData
from mae_kit.tasks.dense import Dense
from mae_kit.tasks.detector import (
    Detections,
    Detector,
    DetectorConfig,
    Name,
    detect,
    detections,
    prepared,
    save_detector,
)
from mae_kit.tasks.metrics import AllRows, Scores
from mae_kit.tasks.query_attention import attention_picture
from mae_kit.tasks.set_criterion import SetCriterion, Truth
from mae_kit.tasks.supervised import HeadedModule
from mae_kit.tasks.task import Task
from mae_kit.training.config import Optimization
from mae_kit.training.ranges import FRACTION, POSITIVE, check_ranges
from mae_kit.training.run import Run
from mae_kit.training.samples import Stream
from mae_kit.weights.config import ModelConfig

log = logging.getLogger(__name__)

BATCH = 16
SHOWN = 0.3  # probability from which on a box is drawn


class Detection(Dense, Task):
    """Boxes around objects and their classes, from images with boxes, by set prediction (DETR, arXiv 2005.12872).

    Images are scaled to fit into `data.image_size`, height and width, and padded with the mean color.

    Args:
        detector: detr = an encoder-decoder on a feature map of any encoder but iGPT's; yolos = detection tokens in a
            plain ViT.
        queries: Number of object queries or detection tokens: the most objects that an image may have.
        proposals: Let DETR's encoder propose the boxes that its queries start from; converges in tens of epochs.
        layers: Number of encoder and decoder layers of DETR.
        width: Channels of DETR's transformer.
        heads: Attention heads of DETR's transformer.
        feedforward: Channels within DETR's MLPs.
        dropout: Dropout rate in DETR's transformer.
        stride: Largest stride, in pixels, of the feature map that DETR takes.
        no_object: Weight of the no-object class in the loss (DETR's eos_coef); with proposals, the loss is focal
            instead.
        scale: Smallest and largest factor that images are scaled by before they are cropped.

    Raises:
        UserError: One of these cannot work.

    Example:
        >>> import torch, mae_kit as mk
        >>> from mae_kit.tasks.config import FinetuneData
        >>> vit = mk.ViT("vit_tiny_patch16_224", img_size=64, patch_size=16, depth=2)
        >>> data = FinetuneData("shards", batch_size=8, image_size=64, mean=[0.5] * 3, std=[0.2] * 3)
        >>> detector, record = mk.Detection("yolos", queries=10).model(data, vit, None, ["cat", "dog"], drop_path=0.0)
        >>> detector(torch.randn(2, 3, 64, 64))[-1].boxes.shape
        torch.Size([2, 10, 4])
    """

    kind = "boxes"

    def __init__(
        self,
        detector: Name = "detr",
        queries: int = 100,
        proposals: bool = False,
        layers: tuple[int, int] = (6, 6),
        width: int = 256,
        heads: int = 8,
        feedforward: int = 2048,
        dropout: float = 0.1,
        stride: int = 32,
        no_object: float = 0.1,
        scale: tuple[float, float] = (0.8, 1.25),
    ):
        super().__init__(scale)
        given = {name: value for name, value in locals().items() if name in ("queries", "width", "heads", "scale")}
        more = {"feedforward": feedforward, "stride": stride, "no_object": no_object, "dropout": dropout}
        ranges = dict.fromkeys((*given, "feedforward", "stride", "no_object"), POSITIVE)
        check_ranges(given | more, "task", **ranges, dropout=FRACTION)
        if width % (4 * heads):
            what = f"task.width {width} is not divisible by 4 times task.heads {heads}"
            raise UserError("task.width.heads", what, f"give a multiple of {4 * heads}")
        self.detector: Name = detector
        self.queries, self.no_object = queries, no_object
        transformer = {"width": width, "heads": heads, "layers": list(layers), "feedforward": feedforward}
        parts = transformer | {"dropout": dropout, "stride": stride, "proposals": proposals}
        self.parts: dict[str, Any] = {"queries": queries} | (parts if detector == "detr" else {})

    def config_of(self, record: ModelConfig) -> DetectorConfig:
        return DetectorConfig(record, self.detector, self.parts)

    def learn(self, model: Any, record: DetectorConfig, stream: Stream) -> DetectorConfig:
        assert stream.index.boxes is not None
        counts = stream.index.boxes.count[stream.rows]
        if (many := int((counts > self.queries).sum())) > 0:
            what = f"{many:,} of {len(counts):,} training images show more objects than there are queries"
            log.warning(f"{what}, {self.queries}; the most {counts.max():,}: give --task.queries")
        return super().learn(model, record, stream)

    def batches(self, stream: Stream, data: FinetuneData, record: DetectorConfig) -> BoxedTrainBatches:
        return stream.batches(record.model.size, record.model.channels, kind=BoxedTrainBatches)

    def module(
        self,
        model: Any,
        record: DetectorConfig,
        augmentation: Augmentation,
        optimization: Optimization,
        ema: float | None,
        seed: int,
    ) -> "DetectModule":
        augment = self.augment(BoxedAugment, record, augmentation, "smoothing")
        criterion = SetCriterion(len(record.classes), model.focal, self.no_object)
        return DetectModule(model, augment, criterion, optimization, ema, seed)

    def scores(self, val: Index, record: DetectorConfig, every: int, replica: Replica, run: Run) -> "DetectionScores":
        mine = val.boxed()[replica.rank :: replica.world_size]
        held_out = BoxedBatches(val, mine, BATCH, record.model.size, record.model.channels)
        return DetectionScores(held_out, len(record.model.classes), every, record.model.size, run)

    def save(self, folder: Path, model: Any, record: DetectorConfig) -> Path:
        return save_detector(folder, model, record)

    def images(self, val: Index, rows: np.ndarray, record: DetectorConfig) -> BoxedBatches:
        return BoxedBatches(val, rows, 1, record.model.size, record.model.channels)

    def draw_image(self, model: Detector, record: DetectorConfig, batch: Batch, run: RunFolder, name: str) -> None:
        assert batch.sizes is not None
        (found,), (height, width) = detect(model, record, batch.images, batch.sizes), batch.sizes[0].tolist()
        shown, true = as_rgb(batch.images[0, :, :height, :width]), truth_of(batch.labels[0])
        side_by_side(shown, [true, found.above(SHOWN)], record.classes).save(run.predictions / name)
        run.attention.mkdir(exist_ok=True)
        whole = prepared(model, record, batch.images, batch.sizes)
        attention_picture(model, whole, shown, record.classes).save(run.attention / name)


def truth_of(boxes: Tensor) -> Detections:
    """The objects of an image, from its row of a batch."""
    known = boxes[boxes[:, 4] >= 0]
    return Detections(known[:, :4], known[:, 4].long(), torch.ones(len(known)))


def found_rows(found: list[Detections], ids: Tensor) -> Tensor:
    """Image, edges, class and probability of each box."""
    images = [image.expand(len(one.scores), 1) for image, one in zip(ids.to(found[0].boxes), found, strict=True)]
    columns = (torch.cat([one.boxes, one.classes[:, None], one.scores[:, None]], dim=1) for one in found)
    return torch.cat([torch.cat(pair, dim=1) for pair in zip(images, columns, strict=True)])


def true_rows(boxes: Tensor, ids: Tensor) -> Tensor:
    """Image, edges, class and crowd of each object, and rows of class -1 where there is none."""
    return torch.cat([ids.to(boxes)[:, None, None].expand(-1, boxes.shape[1], 1), boxes], dim=2).flatten(0, 1)


class DetectModule(HeadedModule):
    """Train a detector on images with boxes.

    Args:
        model: What is trained; what needs no gradients stays in eval mode.
        augment: What happens to a batch on the device.
        criterion: The loss.
        optimization: Of the training; layer_decay is for the backbone, its detector learns at the full rate.
        ema: Decay of a moving average of the weights.
        seed: Of everything random.
    """

    def __init__(
        self,
        model: Detector,
        augment: BoxedAugment,
        criterion: SetCriterion,
        optimization: Optimization,
        ema: float | None = None,
        seed: int = 0,
    ):
        super().__init__(model, optimization, ema, seed)
        self.augment, self.criterion = augment, criterion

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.sizes is not None
        images, boxes = self.augment(batch.images, batch.labels, batch.seeds, batch.sizes)
        layers = self.model(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.criterion(layers, [_truth(one, self.augment.size) for one in boxes])


def _truth(boxes: Tensor, size: tuple[int, int]) -> Truth:
    """Objects to learn, without crowds; boxes in 0..1."""
    known = boxes[(boxes[:, 4] >= 0) & (boxes[:, 5] == 0)]
    edges = known[:, :4] / known.new_tensor([size[1], size[0]] * 2)
    return Truth(box_convert(edges, "xyxy", "cxcywh"), known[:, 4].long())


class DetectionScores(Scores):
    """COCO's mean average precision, at an IoU of 0.5 to 0.95 (`map`) and of 0.5 (`map50`), and a row for each class.

    Args:
        batches: This rank's part of the images with boxes.
        classes: Number of classes.
        every: Steps between two scores.
        size: Height and width that images were fitted into.
        run: Of the training.
    """

    table = "ap_of_classes"

    def __init__(
        self, batches: Iterable[Batch], classes: int, every: int, size: tuple[int, int], run: Run | None = None
    ):
        rows = {"found": AllRows(7), "true": AllRows(7), "images": AllRows(1)}
        metrics = MetricCollection(dict(rows), compute_groups=False)
        super().__init__(batches, every, ("map50", "map"), metrics, run)
        self.classes, self.size = classes, size

    def take(self, model: Any, normalize: nn.Module, batch: Batch) -> None:
        if len(batch.images):
            assert batch.sizes is not None
            found = detections(model, model(padded(normalize, batch.images, batch.sizes))[-1], self.size)
            self.metrics["found"].update(found_rows(found, batch.ids))
            self.metrics["true"].update(true_rows(batch.labels, batch.ids))
            self.metrics["images"].update(batch.ids[:, None])

    def found(self, computed: dict[str, Tensor]) -> dict[str, Any]:
        images = computed["images"][:, 0].long()
        precision = average_precision(computed["found"], computed["true"], images, self.classes)
        whole = {"map": macro(precision.ap), "map50": macro(precision.ap50)}
        return {name: float(value) for name, value in whole.items()} | {
            "samples": len(images),
            "ap_of_classes": precision._asdict(),
        }
