"""The images that a classifier is most certainly wrong about, to look at: labels are often what is wrong."""

from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from mae_kit.data.index.labels import label_names
from mae_kit.data.index.open import Index
from mae_kit.data.loading.batch import Batch
from mae_kit.data.loading.images import thumbnail
from mae_kit.files.durable import replacing
from mae_kit.files.run_folder import RunFolder

MOST = 24
SIDE = 160  # px


class Mistake(NamedTuple):
    """One image that got another class than its label.

    Attributes:
        probability: Of the class it got, 0 to 1.
        predicted: That class.
        row: Of the index.
    """

    probability: float
    predicted: int
    row: int


def mistakes_of(logits: Float[Tensor, "b k"], batch: Batch) -> list[Mistake]:
    """The mistakes in a batch of images with one label each; of multi-label data none."""
    if batch.labels.ndim > 1:
        return []
    sure, predicted = logits.softmax(dim=1).max(dim=1)
    wrong = (predicted != batch.labels).cpu()
    columns = (each.cpu()[wrong].tolist() for each in (sure, predicted, batch.ids))
    return [Mistake(*each) for each in zip(*columns, strict=True)]


def surest(mistakes: list[Mistake]) -> list[Mistake]:
    """Those with the highest probabilities, the highest first."""
    return sorted(mistakes, reverse=True)[:MOST]


def save_mistakes(run: RunFolder, index: Index, mistakes: list[Mistake], classes: list[str]) -> list[dict[str, Any]]:
    """Write a thumbnail of each into the run; return its file, key, label, prediction and probability."""
    run.mistakes.mkdir(exist_ok=True)
    for number, one in enumerate(mistakes):
        with replacing(run.mistake(number)) as making:
            making.write_bytes(thumbnail(index.read(one.row), SIDE, index.scale))
    return [
        {
            "file": index.file(one.row) or index.keys[one.row],
            "label": str(label_names(index, one.row)[0]),
            "predicted": classes[one.predicted],
            "probability": one.probability,
        }
        for one in mistakes
    ]
