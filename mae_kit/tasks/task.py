"""The contract of a task: what `finetune` asks of it, whatever its labels are."""

from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from mae_kit.classes.configured import Configured
from mae_kit.data.index.open import Index
from mae_kit.data.loading.loader import Replica, TrainBatches
from mae_kit.encoders import Encoder
from mae_kit.files.run_folder import RunFolder
from mae_kit.tasks.classifier import ModelSpec
from mae_kit.tasks.config import Augmentation, FinetuneData
from mae_kit.tasks.labeled import Labeled
from mae_kit.tasks.metrics import Scores
from mae_kit.tasks.supervised import SupervisedModule
from mae_kit.training.checkpoint import State
from mae_kit.training.config import Machine, Optimization
from mae_kit.training.run import Run
from mae_kit.training.samples import Stream
from mae_kit.training.train import Job
from mae_kit.weights.pretrained import AnyTimm


class Task(Configured):
    """What labels are for, with the settings of its head and loss; a recipe names it as it names an objective.

    A model of the task travels with its record: whatever `model` returns as such, the other methods take.

    Attributes:
        pooled: Whether the head takes one vector of an image; otherwise it takes all tokens, or maps, of the encoder.
    """

    pooled: ClassVar[bool] = True

    def open(self, data: FinetuneData, optimization: Optimization, machine: Machine, seed: int) -> Labeled:
        """Open labeled shards, to train on and to score on.

        Raises:
            UserError: They hold no labels of this task, or a setting of the data has no effect on it.
        """
        raise NotImplementedError

    def model(
        self,
        data: FinetuneData,
        encoder: Encoder | AnyTimm | None,
        spec: ModelSpec | None,
        classes: list[str],
        drop_path: float,
    ) -> tuple[nn.Module, Any]:
        """Make a head for an encoder, or for a timm model without one; returns the model and its record."""
        raise NotImplementedError

    def backbone(self, model: Any) -> nn.Module:
        """The timm model in it, of which the last blocks may learn alone."""
        return model.backbone

    def learn(self, model: nn.Module, record: Any, stream: Stream) -> Any:
        """Complete a model and its record by what only the training images tell; returns the record."""
        return record

    def batches(self, stream: Stream, data: FinetuneData, record: Any) -> TrainBatches:
        """What this process trains on."""
        raise NotImplementedError

    def module(
        self,
        model: nn.Module,
        record: Any,
        augmentation: Augmentation,
        optimization: Optimization,
        ema: float | None,
        seed: int,
    ) -> SupervisedModule:
        """Make the module that trains the model; `ema` and `seed` as of `SupervisedModule`."""
        raise NotImplementedError

    def scores(self, val: Index, record: Any, every: int, replica: Replica, run: Run) -> Scores:
        """What scores a model on this process's part of held-out shards."""
        raise NotImplementedError

    def tell(self, job: Job) -> None:
        """Log what `start` will do, for a dry run."""

    def start(self, job: Job, record: Any, scores: Scores, run: Run, state: State | None) -> tuple[Job, Any]:
        """Do what precedes the first step; returns the training, and what `result` has to know. A dry run skips it."""
        return job, None

    def result(self, job: Job, record: Any, scores: Scores, started: Any) -> tuple[nn.Module, dict[str, Any]]:
        """The model that a complete training has made, and what it says of it, its scores first."""
        return job.module.scored(), scores.result(record.classes)

    def save(self, folder: Path, model: nn.Module, record: Any) -> Path:
        """Write the model into a folder."""
        raise NotImplementedError

    def draw(self, model: nn.Module, record: Any, scores: Scores, val: Index, run: RunFolder) -> dict[str, Any]:
        """Write a few pictures of what the model predicts into a run; returns what its result says of them."""
        return {}
