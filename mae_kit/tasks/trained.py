"""The contract of what a fine-tuning has written: `predict`, `evaluate`, `export` ask it, whatever its labels are."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mae_kit.data.index.open import Index
from mae_kit.data.remote.filesystem import Place
from mae_kit.evaluation.bootstrap import Gain, Score
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.onnx import Graph

PREDICTED = "predicted"


@runtime_checkable
class HeldOut(Protocol):
    """Predictions for held-out images, next to the truth."""

    @property
    def samples(self) -> int: ...

    def score(self) -> Score: ...

    def gain(self, theirs: Any) -> Gain:
        """How much better these are than those of another model on the same images."""
        ...


class Trained:
    """A model that a fine-tuning has written.

    Attributes:
        kind: Name of its file: classifier, segmenter, regressor.
        config: The record of the model.
    """

    kind: str
    config: ModelConfig

    def held_out(self, index: Index, name: str) -> HeldOut:
        """Predict the labeled images of an index; `name` is that of the shards in messages.

        Raises:
            UserError: They have no labels of this task, or other classes.
        """
        raise NotImplementedError

    def predict(self, images: list[Place], top: int, limit: int | None, out: Path | None, run: Path) -> dict[str, Any]:
        """Predict images, as `mae-kit predict` does and with its arguments; returns what it returns."""
        raise NotImplementedError

    def graph(self) -> Graph:
        """What ONNX and torch.export write of it."""
        raise NotImplementedError
