"""A trained regressor: numbers of images."""

import logging
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim

from mae_kit.data.index.open import Index
from mae_kit.data.loading.images import read_images
from mae_kit.data.loading.targets import TargetBatches
from mae_kit.data.remote.filesystem import Place
from mae_kit.data.transforms.augment import Normalize
from mae_kit.errors import UserError
from mae_kit.evaluation.numbers import Numbers
from mae_kit.tasks.classes import BATCH, check_table, write_table
from mae_kit.tasks.regressor import load_regressor
from mae_kit.tasks.trained import Trained
from mae_kit.weights.onnx import INPUT, Graph, model_record

log = logging.getLogger(__name__)


class TrainedRegressor(Trained):
    """The regressor of a fine-tuning; on the GPU if there is one.

    Args:
        path: A run, or its regressor.safetensors.

    Raises:
        UserError: As `load_regressor`.
    """

    kind = "regressor"

    def __init__(self, path: Path):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        model, self.config = load_regressor(path)
        self.model = model.to(self.device)
        self.normalize = Normalize(self.config.mean, self.config.std).to(self.device)

    @torch.no_grad()
    def numbers(self, images: Tensor) -> np.ndarray:
        """Of images, uint8: float64 [b t]."""
        return self.model(self.normalize(images.to(self.device))).double().cpu().numpy()

    def held_out(self, index: Index, name: str) -> Numbers:
        """Predict the images with numbers of an index.

        Args:
            index: Shards with the numbers of the regressor.
            name: Of the shards in messages.

        Raises:
            UserError: They have none, or others.
        """
        config = self.config
        if index.targets is None or index.targets.names != config.classes:
            what = f"{name} does not have the numbers of the regressor ({', '.join(config.classes[:3])})"
            raise UserError("data.targets.of_model", what, "give images with these numbers")
        batches = list(TargetBatches(index, BATCH, config.size, config.channels, index.targeted()))
        found = [self.numbers(batch.images) for batch in batches]
        return Numbers(np.concatenate(found), torch.cat([batch.labels for batch in batches]).double().numpy())

    def predict(self, images: list[Place], top: int, limit: int | None, out: Path | None, run: Path) -> dict[str, Any]:
        check_table(out)
        config, results = self.config, list[dict[str, Any]]()
        for source in images:
            found = islice(read_images(source, config.size, config.channels, *config.crop, config.scale), limit)
            while some := list(islice(found, BATCH)):
                values = self.numbers(torch.stack([pixels for pixels, _ in some])).tolist()
                for (_, name), row in zip(some, values, strict=True):
                    log.info(f"{name}: " + ", ".join(f"{k} {v:.4g}" for k, v in zip(config.classes, row, strict=True)))
                    results.append({"image": name, "numbers": dict(zip(config.classes, row, strict=True))})
        if out is None:
            return {"predictions": results}
        rows = [list(one["numbers"].values()) for one in results]
        return {
            "predictions": results,
            "out": write_table(out, config.classes, [one["image"] for one in results], rows),
        }

    def graph(self) -> Graph:
        example = torch.zeros(2, self.config.channels, *self.config.size)
        return Graph(self.model.cpu(), example, {INPUT: {0: Dim("batch")}}, "numbers", model_record(self.config))
