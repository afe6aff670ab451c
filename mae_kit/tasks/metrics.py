"""How good a classifier is on held-out shards, while it trains and at the end."""

from collections.abc import Iterable
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
from torchmetrics.utilities import dim_zero_cat

from mae_kit.data.loading.batch import Batch
from mae_kit.evaluation.metrics import Counts, average_precision, class_rows, macro
from mae_kit.tasks.mistakes import Mistake, mistakes_of, surest
from mae_kit.training.periodic import PeriodicScore
from mae_kit.training.run import Run
from mae_kit.training.signals import until_signal

HEADLINES = {
    "miou": "mean IoU",
    "r2": "R2",
    "pixel_accuracy": "pixel accuracy",
    "top1": "top-1",
    "top5": "top-5",
    "map": "mean average precision",
    "map50": "mean average precision at IoU 0.5",
    "macro_f1": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
}
FIVE = 5  # top-5 says something of more classes alone
THRESHOLD = 0.5  # of the probability from which on a class counts as there


class Scores(PeriodicScore):
    """Scores of held-out samples, shared out among the ranks.

    Attributes:
        table: Under which name the result has a row for each class.

    Args:
        batches: This rank's part of the labeled samples.
        every: Steps between two scores.
        logged: Names of the scores to write on the way, the one that counts first.
        metrics: Gather what the scores are made of.
        run: Says, when a run is resumed, whether the scores are written already.
    """

    table = "of_classes"

    def __init__(
        self,
        batches: Iterable[Batch],
        every: int,
        logged: tuple[str, ...],
        metrics: MetricCollection,
        run: Run | None = None,
    ):
        super().__init__(f"val_{logged[0]}", every, run)
        self.batches, self.logged, self.metrics = batches, logged, metrics

    def act(self, trainer: Trainer, pl_module: Any) -> None:
        """Run over the held-out samples and write the scores."""
        self.score(pl_module.scored(), pl_module.augment.normalize, until_signal(trainer, pl_module, self.batches))
        self.report(trainer, pl_module, {f"val_{name}": self._found[name] for name in self.logged})

    def score(self, model: nn.Module, normalize: nn.Module, batches: Iterable[Batch]) -> None:
        """Score a model, in eval mode, on batches on its device; `result` then returns the scores."""
        device = next(model.parameters()).device
        self.metrics.to(device).reset()
        self.mistakes: list[Mistake] = []  # the surest ones of this rank
        for batch in batches:
            self.take(model, normalize, batch)
        self._found = self.found({name: values.cpu() for name, values in self.metrics.compute().items()})

    def take(self, model: nn.Module, normalize: nn.Module, batch: Batch) -> None:
        """Predict a batch, and take it in."""
        logits = model(normalize(batch.images)).float()
        self.update(logits, batch.labels)
        self.mistakes = surest(self.mistakes + mistakes_of(logits, batch))

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take in logits, or what else the model gives, and labels."""
        raise NotImplementedError

    def found(self, computed: dict[str, Tensor]) -> dict[str, Any]:
        """The scores, 0..1, of all batches."""
        raise NotImplementedError

    def result(self, classes: list[str]) -> dict[str, Any]:
        """The last scores, 0..1, and a row for each class; null where nothing can be said."""
        return self._found | {"classes": classes, self.table: class_rows(self._found[self.table], classes)}


class ClassificationScores(Scores):
    """Scores of one label per image: top-1, top-5 of more than five classes, class means, and the confusion matrix.

    Args:
        batches: This rank's part of the labeled samples.
        classes: Number of classes.
        every: Steps between two scores.
        run: Of the training.
    """

    def __init__(self, batches: Iterable[Batch], classes: int, every: int, run: Run | None = None):
        metrics: dict[str, Metric] = {
            "top1": MulticlassAccuracy(classes, average="micro"),
            "confusion": MulticlassConfusionMatrix(classes),
        }
        if classes > FIVE:
            metrics["top5"] = MulticlassAccuracy(classes, average="micro", top_k=FIVE)
        logged = tuple(name for name in ("top1", "top5", "macro_f1") if name in metrics or name == "macro_f1")
        super().__init__(batches, every, logged, MetricCollection(dict(metrics)), run)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        self.metrics.update(logits, labels)

    def found(self, computed: dict[str, Tensor]) -> dict[str, Any]:
        confusion = computed["confusion"].numpy()
        counts = Counts.of_confusion(confusion)
        accuracy = {name: float(computed[name]) for name in ("top1", "top5") if name in computed}
        return {
            **accuracy,
            "macro_f1": float(macro(counts.f1())),
            "balanced_accuracy": float(macro(counts.recall())),
            "samples": int(confusion.sum()),
            "of_classes": counts.columns(),
            "confusion": confusion.tolist(),
        }

    def result(self, classes: list[str]) -> dict[str, Any]:
        """As of all scores, and `per_class`, the accuracy of each class that has samples."""
        whole = super().result(classes)
        per_class = {row["name"]: row["recall"] for row in whole["of_classes"] if row["recall"] is not None}
        return whole | {"per_class": per_class}


class MultiLabelScores(Scores):
    """Of any number of classes an image: mean average precision, and F1 where a class is there from .5 on.

    Means are over the classes, each counting alike, but for those that no sample has.

    Args:
        batches: This rank's part of the labeled samples.
        classes: Number of classes.
        every: Steps between two scores.
        run: Of the training.
    """

    def __init__(self, batches: Iterable[Batch], classes: int, every: int, run: Run | None = None):
        metrics = {"probability": AllRows(classes), "true": AllRows(classes)}
        gathered = MetricCollection(dict(metrics), compute_groups=False)
        super().__init__(batches, every, ("map", "macro_f1"), gathered, run)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        self.metrics["probability"].update(logits.sigmoid())
        self.metrics["true"].update(labels.float())

    def found(self, computed: dict[str, Tensor]) -> dict[str, Any]:
        probability, true = computed["probability"].numpy(), computed["true"].numpy() > 0
        counts = Counts.of_sets(probability >= THRESHOLD, true)
        precision = average_precision(probability, true)
        return {
            "map": float(macro(precision)),
            "macro_f1": float(macro(counts.f1())),
            "samples": len(true),
            "of_classes": counts.columns() | {"average_precision": precision},
        }


class AllRows(Metric):
    """All rows [n k] of all ranks; a rank without samples has a matrix of none, since ranks gather like with like."""

    rows: list[Tensor]

    def __init__(self, classes: int):
        super().__init__()
        self.classes = classes
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def reset(self) -> None:
        super().reset()
        self.rows.append(torch.empty(0, self.classes, device=self.device))

    def update(self, rows: Tensor) -> None:
        self.rows.append(rows)

    def compute(self) -> Tensor:
        return dim_zero_cat(self.rows)
