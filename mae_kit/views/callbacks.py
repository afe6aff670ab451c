"""What a training without labels shows of itself every so often: a grid of reconstructions, and a score."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer
from torch import Tensor

from mae_kit.console import say
from mae_kit.data.order import permute
from mae_kit.evaluation.answers import goodness
from mae_kit.evaluation.intervals import TOP1
from mae_kit.evaluation.knn import knn_predict
from mae_kit.tensors import Batch
from mae_kit.tokenizers.dvae import has_collapsed, perplexity
from mae_kit.training.periodic import Periodic
from mae_kit.training.record import Record
from mae_kit.training.signals import Signals
from mae_kit.views.reconstruct import picture
from mae_kit.views.reconstructions import save_png, tile_grid

SHOWN = 8


class Reconstructions(Periodic):
    """The same images with the same patches hidden, over the run: reconstructions/step-*.png.

    Args:
        batch: The probe.
        every: Steps between two pictures.
    """

    def __init__(self, batch: Batch, every: int):
        super().__init__(every)
        self.batch = batch

    def is_done(self, pl_module: Any) -> bool:
        return _picture_file(pl_module).exists()

    def act(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            batch = pl_module.transfer_batch_to_device(self.batch, pl_module.device, 0)
            grid = picture(pl_module.objective, pl_module.augment.normalise, batch.images, batch.keys)
            save_png(_picture_file(pl_module), grid)


def _picture_file(pl_module: Any) -> Path:
    return pl_module.run.path / "reconstructions" / f"step-{pl_module.step:08d}.png"


class KnnScore(Periodic):
    """Is my run healthy? kNN score of mean patch features; half of the labelled samples, by chance, is the bank.

    Args:
        batches: Labelled samples on rank 0, none on the others.
        classes: Number of classes.
        every: Steps between two scores.
        metric: `top1`, or `map` where images have any number of classes.
    """

    def __init__(self, batches: Iterable[Batch], classes: int, every: int, metric: str = TOP1):
        super().__init__(every)
        self.batches, self.classes, self.name = batches, classes, f"knn_{metric}"

    def is_done(self, pl_module: Any) -> bool:
        return pl_module.run.has_metric(pl_module.step, self.name)

    def act(self, trainer: Trainer, pl_module: Any) -> None:
        batches = Signals.of(trainer).until_signal(trainer, pl_module, self.batches)
        seen = [self._features(pl_module, batch) for batch in batches]
        if trainer.is_global_zero:
            x, y = (torch.cat(parts) for parts in zip(*seen, strict=True))
            shuffled = torch.from_numpy(permute(np.arange(len(x)), len(x), 0)).to(x.device)  # classes come in any order
            bank, queries = shuffled[::2], shuffled[1::2]
            predicted = knn_predict(x[bank], y[bank], x[queries], self.classes)
            Record.of(trainer).write(pl_module, {self.name: goodness(predicted, y[queries])})

    def _features(self, pl_module: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        encoder = pl_module.objective.encoder
        tokens = encoder(pl_module.augment.normalise(batch.images))
        return tokens[:, encoder.prefix :].mean(dim=1).float(), batch.labels


class Codebook(Periodic):
    """Is my tokenizer healthy? Images beside what their codes stand for, and how many codes are in use.

    Args:
        batches: The same images each time on rank 0, none on the others.
        every: Steps between two looks.
    """

    def __init__(self, batches: Iterable[Batch], every: int):
        super().__init__(every)
        self.batches = batches

    def is_done(self, pl_module: Any) -> bool:
        return pl_module.run.has_metric(pl_module.step, "perplexity")

    def act(self, trainer: Trainer, pl_module: Any) -> None:
        batches = Signals.of(trainer).until_signal(trainer, pl_module, self.batches)
        seen = [(batch.images, self._codes(pl_module, batch)) for batch in batches]
        if trainer.is_global_zero:
            codes, tokenizer = torch.cat([codes for _, codes in seen]), pl_module.tokenizer
            images = seen[0][0][:SHOWN].float() / 255
            decoded = tokenizer.decode(codes[: len(images)], tokenizer.grid_of(images)).cpu()
            save_png(_picture_file(pl_module), tile_grid({"input": images, "decoded": decoded}))
            in_use = float(perplexity(codes, tokenizer.codebook))
            collapsed = has_collapsed(codes, tokenizer.codebook)
            measured = {"perplexity": in_use, "codes_used": len(codes.unique()), "collapsed": int(collapsed)}
            Record.of(trainer).write(pl_module, measured)
            if collapsed:
                say(f"step {pl_module.step}: {_collapse(in_use, tokenizer.codebook)}")

    def _codes(self, pl_module: Any, batch: Batch) -> Tensor:
        return pl_module.tokenizer.encode(batch.images.to(pl_module.device).float() / 255)


def _collapse(in_use: float, codebook: int) -> str:
    return (
        f"the codebook has collapsed, {in_use:.1f} of {codebook} codes are in use by perplexity; "
        "train on, lower the learning rate, or take fewer codes"
    )
