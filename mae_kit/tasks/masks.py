"""A trained segmenter: masks of images."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mae_kit.data.index.open import Index
from mae_kit.data.index.statistics import share_scale
from mae_kit.data.loading.decoded import decoded
from mae_kit.data.loading.images import as_rgb
from mae_kit.data.loading.masks import MaskedImages
from mae_kit.data.remote.filesystem import Place
from mae_kit.errors import UserError
from mae_kit.evaluation.pixels import PixelCounts, count_pixels, stack
from mae_kit.tasks.files import PredictedFiles
from mae_kit.tasks.overlays import beside, to_palette
from mae_kit.tasks.segmentation import predict_mask
from mae_kit.tasks.segmenter import load_segmenter
from mae_kit.tasks.trained import Trained

log = logging.getLogger(__name__)


class TrainedSegmenter(Trained):
    """The segmenter of a fine-tuning; on the GPU if there is one.

    Args:
        path: A run, or its segmenter.safetensors.

    Raises:
        UserError: As `load_segmenter`.
    """

    kind = "segmenter"

    def __init__(self, path: Path):
        model, self.record = load_segmenter(path)
        super().__init__(model, self.record.model)

    def held_out(self, index: Index, name: str) -> PixelCounts:
        """As of all; images are predicted whole, by sliding windows."""
        classes = self.config.classes
        if not len(index.masked()) or index.classes != classes:
            what = f"{name} does not have masks with the classes of the segmenter ({', '.join(classes[:3])}, ...)"
            raise UserError("data.masks.of_model", what, "give images with masks of these classes")
        share_scale(self.config.scale, index)
        images = []
        for batch in decoded(MaskedImages(index, index.masked(), self.config.channels), name):
            found = predict_mask(self.model, batch.images, self.record).numpy()
            images.append(count_pixels(found, batch.labels[0].numpy(), len(classes)))
        return stack(images)

    def predict(self, images: list[Place], top: int, limit: int | None, out: Path | None, run: Path) -> dict[str, Any]:
        names, results = self.config.classes, list[dict[str, Any]]()
        files = PredictedFiles(out, run)
        for name, pixels in self.whole_images(images, limit):
            mask = predict_mask(self.model, pixels[None], self.record).numpy()
            file, picture = files.of(name, ".png", ".overlay.png")
            to_palette(mask, len(names)).save(file)
            beside(as_rgb(pixels), [mask], names).save(picture)
            counts = np.bincount(mask.ravel(), minlength=len(names)) / mask.size
            found = {names[number]: float(counts[number]) for number in np.argsort(-counts) if counts[number]}
            log.info(f"{name}: " + ", ".join(f"{label} {part:.1%}" for label, part in list(found.items())[:top]))
            results.append({"image": name, "mask": str(file), "overlay": str(picture), "classes": found})
        return {"out": str(files.folder), "predictions": results}

    def traced(self) -> tuple[nn.Module, dict[str, Any]]:
        """Gives the logits of each pixel of a window."""
        return self.model, {"overlap": self.record.overlap}
