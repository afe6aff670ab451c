"""The contract of a task: what `finetune` asks of it, whatever its labels are."""

from pathlib import Path
from typing import Any

from torch import nn

from mae_kit.classes.configured import Configured
from mae_kit.data.index.open import Index
from mae_kit.data.loading.loader import Replica, TrainBatches
from mae_kit.encoders import Encoder
from mae_kit.tasks.classifier import ModelSpec
from mae_kit.tasks.config import Augmentation, FinetuneData
from mae_kit.tasks.labeled import Labeled
from mae_kit.tasks.metrics import Scores
from mae_kit.training.config import Machine, Optimization
from mae_kit.training.module import TrainingModule
from mae_kit.training.run import Run
from mae_kit.training.samples import Stream
from mae_kit.weights.pretrained import AnyTimm


class Task(Configured):
    """What labels are for, with the settings of its head and loss; a recipe names it as it names an objective.

    A model of the task travels with its record: whatever `model` returns as such, the other methods take.
    """

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

    def learn(self, model: nn.Module, record: Any, stream: Stream) -> Any:
        """Complete a model and its record by what only the training images tell; returns the record."""
        return record

    def batches(self, stream: Stream, data: FinetuneData, record: Any) -> TrainBatches:
        """What this process trains on."""
        raise NotImplementedError

    def module(
        self, model: nn.Module, record: Any, augmentation: Augmentation, optimization: Optimization, seed: int
    ) -> TrainingModule:
        """Make the module that trains the model; its `scored()` is the model that counts."""
        raise NotImplementedError

    def scores(self, val: Index, record: Any, every: int, replica: Replica, run: Run) -> Scores:
        """What scores a model on this process's part of held-out shards."""
        raise NotImplementedError

    def save(self, folder: Path, model: nn.Module, record: Any) -> Path:
        """Write the model into a folder."""
        raise NotImplementedError

    def draw(self, model: nn.Module, record: Any, val: Index, folder: Path) -> list[Path]:
        """Draw predictions next to the truth, a few pictures, into a folder that is made; by default none."""
        return []
