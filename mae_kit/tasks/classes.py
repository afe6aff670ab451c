"""A trained classifier: the most likely classes of images."""

import csv
import io
import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mae_kit.data.index.open import Index
from mae_kit.data.index.statistics import share_scale
from mae_kit.data.loading.decoded import decoded
from mae_kit.data.loading.loader import EvaluationBatches
from mae_kit.data.remote.filesystem import Place
from mae_kit.errors import UserError
from mae_kit.evaluation.bootstrap import Gain, Score, paired_gain
from mae_kit.evaluation.methods import HALF, score_predictions
from mae_kit.evaluation.predictions import Labels, Predictions, predictions
from mae_kit.files.durable import must_take_files, replace_text
from mae_kit.inert import cell
from mae_kit.tasks.metrics import THRESHOLD
from mae_kit.tasks.trained import BATCH, Trained
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import load_classifier

log = logging.getLogger(__name__)

_OF_MODEL = "give images labeled with classes of the classifier"


class Classified(NamedTuple):
    """Classes of held-out images.

    Attributes:
        found: Predicted classes [q], or probabilities [q k] of multi-label data.
        truth: Labels.
        classes: Number of classes.
    """

    found: Predictions
    truth: Labels
    classes: int

    @property
    def samples(self) -> int:
        return len(self.truth)

    def score(self) -> Score:
        return score_predictions(self.found[None], self.truth, self.classes, HALF)

    def gain(self, theirs: "Classified") -> Gain:
        return paired_gain(*(each.cpu().numpy() for each in (self.found, theirs.found, self.truth)))


class TrainedClassifier(Trained):
    """The classifier of a fine-tuning; on the GPU if there is one.

    Args:
        path: A run, or its classifier.safetensors.

    Raises:
        UserError: As `load_classifier`.
    """

    kind = "classifier"

    def __init__(self, path: Path):
        model = load_classifier(path)
        super().__init__(model, model.config)

    @property
    def backbone(self) -> Any:
        return self.model.model

    def held_out(self, index: Index, name: str) -> Classified:
        """As of all; images have the size and the crop of training."""
        config = self.config
        places = _places(index, config, name)
        share_scale(config.scale, index)
        found, truth = [], []
        batches = EvaluationBatches(index, index.labeled(), BATCH, config.size, config.channels, *config.crop)
        for batch in decoded(batches, name):
            scores = self.outputs(batch.images)
            found.append(predictions(scores.sigmoid() if config.multi_label else scores, batch.labels))
            truth.append(_renumbered(batch.labels, places, len(config.classes)))
        return Classified(torch.cat(found), torch.cat(truth), len(config.classes))

    def predict(self, images: list[Place], top: int, limit: int | None, out: Path | None, run: Path) -> dict[str, Any]:
        check_table(out)
        config, results = self.config, list[dict[str, Any]]()
        for names, pixels in self.batches(images, limit):
            for name, classes in zip(names, _likely(self.outputs(pixels), config, top), strict=True):
                log.info(f"{name}: {_line(classes, config.multi_label)}")
                results.append({"image": name, "classes": classes})
        return {"predictions": results} | ({"out": _write(results, out)} if out else {})


def _places(index: Index, config: ModelConfig, name: str) -> Int64[Tensor, " k"]:
    """Where the classes of an index are among those of the classifier, which may have more."""
    classes = index.classes or config.classes
    if index.multi_label != config.multi_label:
        kind = "one class" if config.multi_label else "sets of classes"
        raise UserError("data.classes.kind", f"{name} has {kind} per image, unlike the classifier", _OF_MODEL)
    if index.class_count > len(classes):
        what = f"{name} has {index.class_count} classes, the classifier {len(classes)}"
        raise UserError("data.classes.too_many", what, _OF_MODEL)
    if unknown := [one for one in classes if one not in config.classes]:
        what = f"{name} has classes that the classifier does not know ({', '.join(unknown[:3])})"
        raise UserError("data.classes.of_model", what, _OF_MODEL)
    return torch.tensor([config.classes.index(one) for one in classes])


def _renumbered(labels: Labels, places: Int64[Tensor, " k"], classes: int) -> Labels:
    """Labels as the classifier numbers its classes."""
    if labels.dim() == 1:
        return places[labels]
    known = torch.zeros(len(labels), classes, dtype=torch.bool)
    known[:, places] = labels
    return known


def check_table(out: Path | None) -> None:
    """Raises UserError where predictions cannot be a CSV file."""
    if out and out.suffix != ".csv":
        raise UserError("out", f"--out {out} is not a .csv file", "give, for example, predictions.csv")
    if out:
        must_take_files(out.parent)


def _line(classes: dict[str, float], multi_label: bool) -> str:
    marked = {label: "*" * (multi_label and value >= THRESHOLD) for label, value in classes.items()}
    return ", ".join(f"{label} {value:.1%}{marked[label]}" for label, value in classes.items())


def _write(results: list[dict[str, Any]], out: Path) -> str:
    """Write image, class_1, probability_1, class_2, ... for each image."""
    ranks = range(1, 1 + len(results[0]["classes"]))
    heading = [f"{name}_{rank}" for rank in ranks for name in ("class", "probability")]
    rows = [[each for pair in one["classes"].items() for each in pair] for one in results]
    return write_table(out, heading, [one["image"] for one in results], rows)


def write_table(out: Path, heading: list[str], images: list[str], rows: list[list[str | float]]) -> str:
    """Write a CSV file, a line for each image, and return its path."""
    buffer = io.StringIO()
    lines = csv.writer(buffer, lineterminator="\n")
    lines.writerow(["image", *map(cell, heading)])
    for image, row in zip(images, rows, strict=True):
        values = [f"{value:.6g}" if isinstance(value, float) else cell(str(value)) for value in row]
        lines.writerow([cell(image), *values])
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(out, buffer.getvalue())
    log.info(f"{len(rows):,} predictions: {out}")
    return str(out)


def _likely(logits: Float[Tensor, "b k"], config: ModelConfig, top: int) -> list[dict[str, float]]:
    """The top classes of each image, with probabilities."""
    likely = logits.sigmoid() if config.multi_label else logits.softmax(dim=1)
    values, places = (each.tolist() for each in likely.topk(min(top, len(config.classes)), dim=1))
    names = ([config.classes[place] for place in row] for row in places)
    return [dict(zip(*row, strict=True)) for row in zip(names, values, strict=True)]
