"""What a pretraining shows of itself every so often: a grid of reconstructions, and a kNN score."""

from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from mae_kit.data.loader import EvaluationBatches
from mae_kit.evaluation.knn import knn_predict
from mae_kit.tensors import Batch
from mae_kit.training.record import Record
from mae_kit.views.reconstruct import picture
from mae_kit.views.reconstructions import save_png


class Periodic(Callback):
    """Calls `act` on rank 0 every so many steps, and at the end; the module is in eval mode, without gradients.

    Args:
        every: Steps between two calls.
    """

    def __init__(self, every: int):
        self.every = every

    def act(self, trainer: Trainer, pl_module: Any) -> None:
        """What is done."""
        raise NotImplementedError

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if pl_module.step_is_done() and pl_module.step % self.every == 0:  # type: ignore[attr-defined, operator]
            self._act(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """At the end, not where a signal stopped the run: whoever sent it will not wait."""
        if pl_module.step % self.every and pl_module.step >= pl_module.plan.steps:  # type: ignore[attr-defined]
            self._act(trainer, pl_module)

    def _act(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.eval()
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            self.act(trainer, pl_module)
        pl_module.train()


class Reconstructions(Periodic):
    """The same images with the same patches hidden, over the run: reconstructions/step-*.png.

    Args:
        batch: The probe.
        every: Steps between two pictures.
    """

    def __init__(self, batch: Batch, every: int):
        super().__init__(every)
        self.batch = batch

    def act(self, trainer: Trainer, pl_module: Any) -> None:
        batch = pl_module.transfer_batch_to_device(self.batch, pl_module.device, 0)
        grid = picture(pl_module.objective, pl_module.augment.normalise, batch.images, batch.keys)
        save_png(pl_module.run.path / "reconstructions" / f"step-{pl_module.step:08d}.png", grid)


class KnnScore(Periodic):
    """Is my run healthy? kNN accuracy of mean patch features; every other labelled sample is the bank.

    Args:
        batches: Labelled samples.
        classes: Number of classes.
        every: Steps between two scores.
    """

    def __init__(self, batches: EvaluationBatches, classes: int, every: int):
        super().__init__(every)
        self.batches, self.classes = batches, classes

    def act(self, trainer: Trainer, pl_module: Any) -> None:
        features, labels = zip(*(self._features(pl_module, batch) for batch in self.batches), strict=True)
        x, y = torch.cat(features), torch.cat(labels)
        predicted = knn_predict(x[::2], y[::2], x[1::2], self.classes)
        score = float((predicted == y[1::2]).float().mean())
        next(c for c in trainer.callbacks if isinstance(c, Record)).write(pl_module, {"knn_top1": score})  # type: ignore[attr-defined]

    def _features(self, pl_module: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        moved = pl_module.transfer_batch_to_device(batch, pl_module.device, 0)
        encoder = pl_module.objective.encoder
        tokens = encoder(pl_module.augment.normalise(moved.images))
        return tokens[:, encoder.prefix :].mean(dim=1).float(), moved.labels
