"""What a training without labels shows of itself every so often: a grid of reconstructions, and a score."""

import logging
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pytorch_lightning import Trainer
from torch import Tensor

from mae_kit.data.loading.batch import Batch
from mae_kit.data.order import permute
from mae_kit.encoders.tokenizers import DVAE
from mae_kit.encoders.tokenizers.usage import Usage
from mae_kit.evaluation.bootstrap import TOP1
from mae_kit.evaluation.knn import knn_predict
from mae_kit.evaluation.predictions import accuracy_or_map
from mae_kit.files.run_folder import RunFolder
from mae_kit.plots.reconstructions import draw_reconstructions, save_png, tile_grid
from mae_kit.training.best import Best
from mae_kit.training.metrics import KNN_IMAGES
from mae_kit.training.outbox import deliver
from mae_kit.training.periodic import Periodic, PeriodicScore
from mae_kit.training.progress import find
from mae_kit.training.record import Record, log_metrics
from mae_kit.training.run import Run
from mae_kit.training.signals import until_signal

log = logging.getLogger(__name__)

SHOWN = 8


class Reconstructions(Periodic):
    """Plots the reconstructions of the same images with the same patches hidden: step-*.png.

    Args:
        batch: The images, uint8.
        every: Steps between two plots.
        run: For the plots.
    """

    def __init__(self, batch: Batch, every: int, run: RunFolder):
        super().__init__(every)
        self.batch, self.run = batch, run

    def is_done(self, trainer: Trainer) -> bool:
        return self.run.reconstruction(trainer.global_step).exists()

    def act(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            batch = pl_module.transfer_batch_to_device(self.batch, pl_module.device, 0)
            grid = draw_reconstructions(pl_module.objective, pl_module.augment.normalize, batch.images, batch.seeds)
            _keep(trainer, self.run, grid)


def _keep(trainer: Trainer, run: RunFolder, grid: UInt8[np.ndarray, "H W 3"]) -> None:
    """Write a plot into the run, and to TensorBoard."""
    deliver(trainer, partial(save_png, run.reconstruction(trainer.global_step), grid))
    if record := find(trainer, Record):
        record.write_image(trainer, "reconstructions", grid)


class KnnScore(PeriodicScore):
    """Is my run healthy? kNN score of mean patch features; half of the labeled samples, by chance, is the bank.

    Untrained weights have a score well above chance: it comes first, and the others are to be judged by it.

    Args:
        batches: Labeled samples on rank 0, none on the others.
        classes: Number of classes.
        every: Steps between two scores.
        metric: `top1`, or `map` for multi-label data.
        run: Says, when a run is resumed, whether the score is written already.
        best: Keeps the best weights.
    """

    def __init__(
        self,
        batches: Iterable[Batch],
        classes: int,
        every: int,
        metric: str = TOP1,
        run: Run | None = None,
        best: Best | None = None,
    ):
        super().__init__(f"knn_{metric}", every, run, best, first=True)
        self.batches, self.classes = batches, classes

    def act(self, trainer: Trainer, pl_module: Any) -> None:
        batches = until_signal(trainer, pl_module, self.batches)
        seen = [self._features(pl_module, batch) for batch in batches]
        self.report(trainer, pl_module, self._score(seen) if trainer.is_global_zero else {})

    def _score(self, seen: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """The score, and how many images it is of."""
        x, y = (torch.cat(parts) for parts in zip(*seen, strict=True))
        shuffled = torch.from_numpy(permute(np.arange(len(x)), len(x), 0)).to(x.device)  # classes come in any order
        bank, queries = shuffled[::2], shuffled[1::2]
        score = accuracy_or_map(knn_predict(x[bank], y[bank], x[queries], self.classes), y[queries])
        return {self.name: score, KNN_IMAGES: len(queries)}

    def _features(self, pl_module: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        encoder = pl_module.objective.encoder
        tokens = encoder(pl_module.augment.normalize(batch.images))
        return tokens[:, encoder.prefix :].mean(dim=1).float(), batch.labels


class Codebook(Periodic):
    """Is my tokenizer healthy? Images beside what their codes stand for, how many codes are in use and what they tell.

    Args:
        batches: The same images each time on rank 0, none on the others.
        every: Steps between two calls.
        run: For the plots.
    """

    def __init__(self, batches: Iterable[Batch], every: int, run: Run):
        super().__init__(every)
        self.batches, self.run = batches, run

    def is_done(self, trainer: Trainer) -> bool:
        return self.run.has_metric(trainer.global_step, "perplexity")

    def act(self, trainer: Trainer, pl_module: Any) -> None:
        usage = Usage(pl_module.tokenizer.codebook, pl_module.device)
        *_, noise = pl_module.relaxation.at(pl_module.epoch())
        for number, batch in enumerate(until_signal(trainer, pl_module, self.batches)):
            colors = batch.images.float() / 255
            with torch.autocast(colors.device.type, enabled=False):  # as BEiT asks: rounding changes the best code
                logits = pl_module.tokenizer.logits(colors) / noise
            usage.add(logits)
            if number == 0:
                grid = _decoded(pl_module.tokenizer, colors[:SHOWN], logits[:SHOWN])
                _keep(trainer, self.run, grid)
        if trainer.is_global_zero:
            log_metrics(trainer, pl_module, _measured(usage))
            if usage.collapsed:
                log.warning(f"step {trainer.global_step}: {_collapse(usage)}")


def _decoded(
    tokenizer: DVAE, colors: Float[Tensor, "b c h w"], logits: Float[Tensor, "b k y x"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Images beside what the best code of each patch stands for."""
    decoded = tokenizer.decode(logits.argmax(dim=1).flatten(1), tokenizer.grid_of(colors))
    return tile_grid({"input": colors.cpu(), "decoded": decoded.cpu()})


def _measured(usage: Usage) -> dict[str, float]:
    return {
        "perplexity": usage.perplexity,
        "codes_used": usage.used,
        "bits_per_code": usage.bits,
        "collapsed": int(usage.collapsed),
    }


def _collapse(usage: Usage) -> str:
    return (
        f"the codebook has collapsed: perplexity {usage.perplexity:.1f} of {len(usage.counts)} codes, and a code "
        f"carries {usage.bits:.1f} bits about its patch; train longer, or use fewer codes"
    )
