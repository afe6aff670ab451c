"""How good a classifier is on held-out shards, while it trains and at the end."""

from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from mae_kit.data.loader import EvaluationBatches
from mae_kit.training.record import Record


class ClassificationScores(Callback):
    """Scores every so many steps and at the end; all ranks take part.

    Args:
        batches: This rank's share of the labelled samples.
        classes: Number of classes.
        every: Steps between two scores.
    """

    def __init__(self, batches: EvaluationBatches, classes: int, every: int):
        self.batches, self.every = batches, every
        self.metrics = MetricCollection(
            {
                "top1": MulticlassAccuracy(classes, average="micro"),
                "top5": MulticlassAccuracy(classes, average="micro", top_k=min(5, classes)),
                "confusion": MulticlassConfusionMatrix(classes),
            }
        )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        due = pl_module.step % self.every == 0 and pl_module.step < pl_module.plan.steps  # type: ignore[attr-defined]
        if pl_module.step_is_done() and due:  # type: ignore[operator]
            self.score(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """At the end, not where a signal stopped the run: whoever sent it will not wait."""
        if pl_module.step >= pl_module.plan.steps:  # type: ignore[attr-defined, operator]
            self.score(trainer, pl_module)

    def score(self, trainer: Trainer, pl_module: Any) -> None:
        """Run over the held-out samples and write top-1 and top-5."""
        model = pl_module.scored()
        training = model.training
        model.eval()
        self.metrics.to(pl_module.device).reset()
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            for batch in self.batches:
                moved = pl_module.transfer_batch_to_device(batch, pl_module.device, 0)
                logits = model(pl_module.augment.normalise(moved.images))
                self.metrics.update(logits.float(), moved.labels)
        model.train(training)
        self._computed = self.metrics.compute()
        if trainer.is_global_zero:
            values = {f"val_{name}": float(self._computed[name]) for name in ("top1", "top5")}
            next(c for c in trainer.callbacks if isinstance(c, Record)).write(pl_module, values)  # type: ignore[attr-defined]

    def result(self, classes: list[str]) -> dict[str, Any]:
        """The last scores: top1, top5 (0..1), accuracy of each class, confusion matrix [true][predicted]."""
        confusion = self._computed["confusion"].cpu()
        totals = confusion.sum(dim=1)
        per_class = {name: float(confusion[i, i] / totals[i]) for i, name in enumerate(classes) if totals[i]}
        return {
            "top1": float(self._computed["top1"]),
            "top5": float(self._computed["top5"]),
            "samples": int(totals.sum()),
            "classes": classes,
            "per_class": per_class,
            "confusion": confusion.tolist(),
        }
