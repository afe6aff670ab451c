"""Segmentation: a class for every pixel, trained on crops and scored on whole images by sliding windows."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Num, UInt8
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassJaccardIndex

from mae_kit.data.decode import IGNORED
from mae_kit.data.index.open import Index
from mae_kit.data.loading.batch import Batch
from mae_kit.data.loading.images import as_rgb
from mae_kit.data.loading.loader import Replica
from mae_kit.data.loading.masks import MaskedImages, MaskedTrainBatches
from mae_kit.data.transforms.augment import Normalize
from mae_kit.data.transforms.paired import PairedAugment
from mae_kit.evaluation.windows import window_logits
from mae_kit.files.run_folder import RunFolder
from mae_kit.tasks.config import Augmentation, FinetuneData
from mae_kit.tasks.dense import Dense
from mae_kit.tasks.metrics import Scores
from mae_kit.tasks.overlays import beside
from mae_kit.tasks.segmenter import Head, Segmenter, SegmenterConfig, save_segmenter
from mae_kit.tasks.supervised import HeadedModule
from mae_kit.tasks.task import Task
from mae_kit.training.config import Optimization
from mae_kit.training.ranges import BELOW_ONE, NOT_NEGATIVE, POSITIVE, check_ranges
from mae_kit.training.run import Run
from mae_kit.training.samples import Stream
from mae_kit.weights.config import ModelConfig


class Segmentation(Dense, Task):
    """A class for every pixel (Long et al., CVPR 2015), from images with masks.

    `data.image_size` is the size of the training crops and of the sliding windows that score whole images, in pixels of
    the packed images.

    Args:
        head: linear = one layer on the last feature map; pyramid = a feature pyramid (ViTDet's simple feature pyramid
            for a ViT or BEiT, the stages of a Swin, ConvNeXt, Hiera or ResNet); upernet = UPerNet on the same, on maps
            of several blocks of a ViT or BEiT.
        width: Channels of the pyramid.
        dice: Weight of the Dice loss next to cross-entropy; 0 = cross-entropy alone.
        scale: Smallest and largest factor by which images are scaled before cropping.
        overlap: Fraction of a window that the next window also covers when whole images are scored.

    Raises:
        UserError: One of these cannot work.

    Example:
        >>> import torch, mae_kit as mk
        >>> from mae_kit.tasks.config import FinetuneData
        >>> vit = mk.ViT("vit_tiny_patch16_224", img_size=64, patch_size=8, depth=2)
        >>> data = FinetuneData("shards", batch_size=8, image_size=64, mean=[0.5] * 3, std=[0.2] * 3)
        >>> segmenter, record = mk.Segmentation(width=32).model(data, vit, None, ["sky", "road"], drop_path=0.0)
        >>> segmenter(torch.randn(2, 3, 64, 64)).shape  # logits of two classes for each pixel
        torch.Size([2, 2, 64, 64])
    """

    kind = "masks"

    def __init__(
        self,
        head: Head = "pyramid",
        width: int = 128,
        dice: float = 0.0,
        scale: tuple[float, float] = (0.5, 2.0),
        overlap: float = 1 / 3,
    ):
        super().__init__(scale)
        given = {"width": width, "dice": dice, "scale": scale, "overlap": overlap}
        check_ranges(given, "task", width=POSITIVE, dice=NOT_NEGATIVE, scale=POSITIVE, overlap=BELOW_ONE)
        self.head: Head = head
        self.width, self.dice, self.overlap = width, dice, overlap

    def config_of(self, record: ModelConfig) -> SegmenterConfig:
        return SegmenterConfig(record, self.head, self.width, self.overlap)

    def batches(self, stream: Stream, data: FinetuneData, record: SegmenterConfig) -> MaskedTrainBatches:
        return stream.batches(record.model.size, record.model.channels, kind=MaskedTrainBatches)

    def module(
        self,
        model: Any,
        record: SegmenterConfig,
        augmentation: Augmentation,
        optimization: Optimization,
        ema: float | None,
        seed: int,
    ) -> "SegmentModule":
        augment = self.augment(PairedAugment, record, augmentation)
        return SegmentModule(model, augment, optimization, self.dice, augmentation.smoothing, ema, seed)

    def scores(
        self, val: Index, record: SegmenterConfig, every: int, replica: Replica, run: Run
    ) -> "SegmentationScores":
        mine = val.masked()[replica.rank :: replica.world_size]
        held_out = MaskedImages(val, mine, record.model.channels)
        return SegmentationScores(held_out, len(record.model.classes), every, record.model.size, record.overlap, run)

    def save(self, folder: Path, model: Any, record: SegmenterConfig) -> Path:
        return save_segmenter(folder, model, record)

    def images(self, val: Index, rows: np.ndarray, record: SegmenterConfig) -> MaskedImages:
        return MaskedImages(val, rows, record.model.channels)

    def draw_image(self, model: Segmenter, record: SegmenterConfig, batch: Batch, run: RunFolder, name: str) -> None:
        masks = [batch.labels[0].numpy(), predict_mask(model, batch.images, record).numpy()]
        beside(as_rgb(batch.images[0]), masks, record.classes).save(run.predictions / name)


class SegmentModule(HeadedModule):
    """Train a segmenter on crops of images with masks.

    Args:
        model: What is trained; what needs no gradients stays in eval mode.
        augment: What happens to a batch on the device.
        optimization: Of the training; layer_decay is for the backbone, its head learns at the full rate.
        dice: Weight of the Dice loss next to cross-entropy.
        smoothing: Label smoothing of the cross-entropy.
        ema: Decay of a moving average of the weights.
        seed: Of everything random.
    """

    def __init__(
        self,
        model: Segmenter,
        augment: PairedAugment,
        optimization: Optimization,
        dice: float = 0.0,
        smoothing: float = 0.0,
        ema: float | None = None,
        seed: int = 0,
    ):
        super().__init__(model, optimization, ema, seed)
        self.augment, self.dice, self.smoothing = augment, dice, smoothing

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.sizes is not None
        images, masks = self.augment(batch.images, batch.labels, batch.seeds, batch.sizes)
        logits, masks = self.model(images).float(), masks.long()
        loss = cross_entropy(logits, masks, self.smoothing)
        if not self.dice:
            return {"loss": loss}
        overlap = dice_loss(logits, masks)
        return {"loss": loss + self.dice * overlap, "cross_entropy": loss, "dice_loss": overlap}


def cross_entropy(
    logits: Float[Tensor, "b k h w"], masks: Int64[Tensor, "b h w"], smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Mean over the pixels that are not ignored; 0 where all are."""
    total = F.cross_entropy(logits, masks, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing)
    return total / (masks != IGNORED).sum().clamp(min=1)


def dice_loss(logits: Float[Tensor, "b k h w"], masks: Int64[Tensor, "b h w"]) -> Float[Tensor, ""]:
    """1 - the Dice coefficient of probabilities and masks over the pixels of a batch, the mean over its classes.

    As in V-Net (arXiv 1606.04797), without its squares. Ignored pixels do not count, nor classes that no pixel has.
    """
    classes = logits.shape[1]
    known = masks != IGNORED
    true = F.one_hot(masks.where(known, 0), classes).permute(0, 3, 1, 2) * known[:, None]
    found = logits.softmax(dim=1) * known[:, None]
    both, either = ((one.sum(dim=(0, 2, 3))) for one in (found * true, found + true))
    there = true.sum(dim=(0, 2, 3)) > 0
    return ((1 - 2 * both / either.clamp(min=1e-6)) * there).sum() / there.sum().clamp(min=1)


class SegmentationScores(Scores):
    """Scores of every pixel of whole images: mean intersection over union, accuracy, and a row for each class.

    Args:
        batches: This rank's part of the images with masks, one a batch.
        classes: Number of classes.
        every: Steps between two scores.
        window: Height and width of the windows.
        overlap: Fraction of a window that the next one covers, too.
        run: Of the training.
    """

    table = "iou_of_classes"

    def __init__(
        self,
        batches: Iterable[Batch],
        classes: int,
        every: int,
        window: tuple[int, int],
        overlap: float,
        run: Run | None = None,
    ):
        ignored: dict[str, Any] = {"num_classes": classes, "ignore_index": IGNORED}
        metrics = {
            "iou": MulticlassJaccardIndex(**ignored, average=None, zero_division=float("nan")),
            "accuracy": MulticlassAccuracy(**ignored, average="micro"),
            "confusion": MulticlassConfusionMatrix(**ignored),
        }
        super().__init__(batches, every, ("miou", "pixel_accuracy"), MetricCollection(metrics), run)
        self.window, self.overlap = window, overlap

    def take(self, model: nn.Module, normalize: nn.Module, batch: Batch) -> None:
        if len(batch.images):
            logits = window_logits(model, normalize(batch.images), self.window, self.overlap)
            self.metrics.update(logits.argmax(dim=1), batch.labels.long())

    def found(self, computed: dict[str, Tensor]) -> dict[str, Any]:
        iou, confusion = computed["iou"].double().numpy(), computed["confusion"].numpy()
        true = confusion.sum(axis=1)
        with np.errstate(invalid="ignore"):
            columns = {"pixels": true / true.sum(), "iou": iou, "recall": np.diagonal(confusion) / true}
        return {
            "miou": float(np.nanmean(iou)),
            "pixel_accuracy": float(computed["accuracy"]),
            "samples": len(self.batches),  # type: ignore[arg-type]
            "iou_of_classes": columns,
        }


@torch.no_grad()
def predict_mask(model: nn.Module, image: Num[Tensor, "1 c h w"], record: SegmenterConfig) -> UInt8[Tensor, "h w"]:
    """The most likely class of every pixel of an image."""
    config, device = record.model, next(model.parameters()).device
    normalize = Normalize(config.mean, config.std).to(device)
    logits = window_logits(model, normalize(image.to(device)), config.size, record.overlap)
    return logits.argmax(dim=1)[0].to(torch.uint8).cpu()
