"""How good a classifier is on held-out shards, while it trains and at the end."""

from collections.abc import Iterable
from typing import Any

from pytorch_lightning import Trainer
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from mae_kit.tensors import Batch
from mae_kit.training.periodic import Periodic
from mae_kit.training.record import Record
from mae_kit.training.signals import Signals


class ClassificationScores(Periodic):
    """Top-1, top-5 and confusion on held-out samples, shared out among the ranks.

    Args:
        batches: This rank's share of the labelled samples.
        classes: Number of classes.
        every: Steps between two scores.
    """

    def __init__(self, batches: Iterable[Batch], classes: int, every: int):
        super().__init__(every)
        self.batches = batches
        self.metrics = MetricCollection(
            {
                "top1": MulticlassAccuracy(classes, average="micro"),
                "top5": MulticlassAccuracy(classes, average="micro", top_k=min(5, classes)),
                "confusion": MulticlassConfusionMatrix(classes),
            }
        )

    def is_done(self, pl_module: Any) -> bool:
        return pl_module.run.has_metric(pl_module.step, "val_top1")

    def act(self, trainer: Trainer, pl_module: Any) -> None:
        """Run over the held-out samples and write top-1 and top-5."""
        model = pl_module.scored()
        self.metrics.to(pl_module.device).reset()
        for batch in Signals.of(trainer).until_signal(trainer, pl_module, self.batches):
            logits = model(pl_module.augment.normalise(batch.images))
            self.metrics.update(logits.float(), batch.labels)
        self._computed = self.metrics.compute()
        if trainer.is_global_zero:
            values = {f"val_{name}": float(self._computed[name]) for name in ("top1", "top5")}
            Record.of(trainer).write(pl_module, values)

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
