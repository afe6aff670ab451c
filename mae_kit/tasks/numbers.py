"""A trained regressor: numbers of images."""

import logging
from pathlib import Path
from typing import Any

import torch

from mae_kit.data.index.open import Index
from mae_kit.data.index.statistics import share_scale
from mae_kit.data.loading.decoded import decoded
from mae_kit.data.loading.targets import TargetBatches
from mae_kit.data.remote.filesystem import Place
from mae_kit.errors import UserError
from mae_kit.evaluation.numbers import Numbers
from mae_kit.tasks.classes import check_table, write_table
from mae_kit.tasks.regressor import load_regressor
from mae_kit.tasks.trained import BATCH, Trained

log = logging.getLogger(__name__)


class TrainedRegressor(Trained):
    """The regressor of a fine-tuning; on the GPU if there is one.

    Args:
        path: A run, or its regressor.safetensors.

    Raises:
        UserError: As `load_regressor`.
    """

    kind = "regressor"
    output = "numbers"

    def __init__(self, path: Path):
        super().__init__(*load_regressor(path))

    def held_out(self, index: Index, name: str) -> Numbers:
        config = self.config
        if index.targets is None or index.targets.names != config.classes:
            what = f"{name} does not have the numbers of the regressor ({', '.join(config.classes[:3])})"
            raise UserError("data.targets.of_model", what, "give images with these numbers")
        share_scale(config.scale, index)
        batches = list(decoded(TargetBatches(index, BATCH, config.size, config.channels, index.targeted()), name))
        found = [self.outputs(batch.images) for batch in batches], [batch.labels for batch in batches]
        return Numbers(*(torch.cat(each).double().numpy() for each in found))

    def predict(self, images: list[Place], top: int, limit: int | None, out: Path | None, run: Path) -> dict[str, Any]:
        check_table(out)
        config, results = self.config, list[dict[str, Any]]()
        for names, pixels in self.batches(images, limit):
            for name, row in zip(names, self.outputs(pixels).tolist(), strict=True):
                numbers = dict(zip(config.classes, row, strict=True))
                log.info(f"{name}: " + ", ".join(f"{label} {value:.4g}" for label, value in numbers.items()))
                results.append({"image": name, "numbers": numbers})
        if out is None:
            return {"predictions": results}
        rows = [list(one["numbers"].values()) for one in results]
        file = write_table(out, config.classes, [one["image"] for one in results], rows)
        return {"predictions": results, "out": file}
