"""The contract of what a fine-tuning has written: `predict`, `evaluate`, `export` ask it, whatever its labels are."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.export import Dim

from mae_kit.data.index.open import Index
from mae_kit.data.loading.images import read_images, whole_images
from mae_kit.data.remote.filesystem import Place
from mae_kit.data.transforms.augment import Normalize
from mae_kit.evaluation.bootstrap import Gain, Score
from mae_kit.parallel.device import frozen_device
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.onnx import INPUT, Graph, model_record

BATCH = 128


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
        layout: Name of the format of another program that can hold it, if there is one.
        output: Name of what its graph gives.
        config: The record of the model.
        model: [b c h w] normalized images -> predictions.
    """

    kind: str
    layout: str = ""
    output: str = "logits"

    def __init__(self, model: nn.Module, config: ModelConfig):
        self.device = frozen_device()
        self.model: Any = model.to(self.device)
        self.config = config
        self.normalize = Normalize(config.mean, config.std).to(self.device)

    @property
    def backbone(self) -> Any:
        """The timm model in it."""
        return self.model.backbone

    @torch.no_grad()
    def outputs(self, images: Num[Tensor, "b c h w"]) -> Float[Tensor, "b _"]:
        """What the model gives for images of its size, on the CPU."""
        return self.model(self.normalize(images.to(self.device))).float().cpu()

    def batches(self, images: list[Place], limit: int | None) -> Iterator[tuple[list[str], Num[Tensor, "b c h w"]]]:
        """Names and pixels of images, at the size and with the crop of training; at most `limit` of each source."""
        config = self.config
        for source in images:
            found = islice(read_images(source, config.size, config.channels, *config.crop, config.scale), limit)
            while some := list(islice(found, BATCH)):
                yield [name for _, name in some], torch.stack([pixels for pixels, _ in some])

    def whole_images(self, images: list[Place], limit: int | None) -> Iterator[tuple[str, Num[Tensor, "c h w"]]]:
        """Names and pixels of images of any size; at most `limit` of each source."""
        for source in images:
            for pixels, name in islice(whole_images(source, self.config.channels, self.config.scale), limit):
                yield name, pixels

    def held_out(self, index: Index, name: str) -> HeldOut:
        """Predict the labeled images of an index.

        Args:
            index: Shards with labels of this task, and the classes of the model.
            name: Of the shards in messages.

        Raises:
            UserError: They have no labels of this task, other classes, or none that decodes.
        """
        raise NotImplementedError

    def predict(self, images: list[Place], top: int, limit: int | None, out: Path | None, run: Path) -> dict[str, Any]:
        """Predict images, as `mae-kit predict` does and with its arguments; returns what it returns."""
        raise NotImplementedError

    def published(self) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
        """What `write_raw` writes of it in its `layout`."""
        raise NotImplementedError

    def traced(self) -> tuple[nn.Module, dict[str, Any]]:
        """The module of its graph, and what the graph's record says besides that of the model."""
        return self.model, {}

    def graph(self) -> Graph:
        """What ONNX and torch.export write of it, for images of one size in any batch."""
        module, more = self.traced()
        example, record = torch.zeros(2, self.config.channels, *self.config.size), model_record(self.config) | more
        return Graph(module.cpu(), example, {INPUT: {0: Dim("batch")}}, self.output, record)
