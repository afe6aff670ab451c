"""Few labels, well used: what frozen features give, cross-validated on the labeled images, before any fine-tuning."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from mae_kit.data.loading.loader import EvaluationBatches
from mae_kit.data.order import permute
from mae_kit.evaluation.bootstrap import Score
from mae_kit.evaluation.heads import Head, probe_head, ridge_head
from mae_kit.evaluation.knn import knn_predict
from mae_kit.evaluation.labeled_features import LabeledFeatures
from mae_kit.evaluation.methods import HALF, score_predictions
from mae_kit.evaluation.predictions import Labels, Predictions, accuracy_or_map, are_sets, predictions
from mae_kit.evaluation.probe import FEWEST, fit_probe

FEW = 2000  # labeled images up to which cross-validation is worth its time
FOLDS = 3
LEAST = 4 * FOLDS  # labeled images to cross-validate with

Predict = Callable[[Any, Labels, Any, int], Predictions]


class Candidate(NamedTuple):
    """One way to use an encoder.

    Attributes:
        method: `ridge`, `knn`, `probe` or `finetune`.
        cross_validated: Top-1 or mean average precision on held-out labeled images, the mean over the folds.
        score: On the validation images.
    """

    method: str
    cross_validated: float
    score: Score

    def record(self) -> dict[str, Any]:
        """Convert for a JSON file."""
        score = self.score._replace(of_classes=None).record()
        return {"method": self.method, "cross_validated": self.cross_validated, **score}


class Frozen(NamedTuple):
    """What the head of a classifier sees of labeled images before the first step.

    Attributes:
        rows: Of the index, of the images that decode.
        images: Their features and labels.
    """

    rows: Int64[np.ndarray, " m"]
    images: LabeledFeatures


@torch.no_grad()
def frozen_features(model: nn.Module, batches: EvaluationBatches, normalize: nn.Module) -> Frozen:
    """Encode the images that decode, in eval mode.

    Args:
        model: A timm model.
        batches: Labeled images.
        normalize: As in training.
    """
    timm: Any = model
    was_training, device = timm.training, next(timm.parameters()).device
    timm.eval()
    rows, found, labels = [], [], []
    for batch in batches:
        images = normalize(batch.images.to(device))
        found.append(timm.forward_head(timm.forward_features(images), pre_logits=True).float())
        labels.append(batch.labels.to(device))
        rows.append(batch.ids.numpy())
    timm.train(was_training)
    return Frozen(np.concatenate(rows), LabeledFeatures(torch.cat(found), torch.cat(labels)))


def draw_folds(labels: Labels, seed: int) -> Int64[np.ndarray, " m"]:
    """Assign each labeled image to one of `FOLDS` folds, each class spread evenly over them.

    Args:
        labels: 0 .. classes - 1; sets of classes are drawn without regard to them.
        seed: Of the draw.
    """
    order = permute(np.arange(len(labels)), len(labels), seed)
    if not are_sets(labels):
        order = order[np.argsort(labels.cpu().numpy()[order], kind="stable")]
    folds = np.empty(len(labels), np.int64)
    folds[order] = np.arange(len(labels)) % FOLDS
    return folds


def frozen_candidates(
    train: LabeledFeatures, val: LabeledFeatures, classes: int, folds: Int64[np.ndarray, " m"]
) -> list[Candidate]:
    """Score ridge regression, nearest neighbors and a linear probe of frozen features.

    Args:
        train: Few labeled images.
        val: Held out; what they score is reported and chooses nothing.
        classes: Number of classes.
        folds: Of the labeled images.
    """
    (known, labels), found = train, []
    for method, (predict, yes) in METHODS.items():
        if method == "probe" and len(labels) * (FOLDS - 1) // FOLDS < FEWEST:
            continue
        predicted = predict(known, labels, val.features, classes)
        score = score_predictions(predicted[None], val.labels, classes, yes)
        found.append(Candidate(method, cross_validated(method, train, classes, folds), score))
    return found


def cross_validated(method: str, train: LabeledFeatures, classes: int, folds: Int64[np.ndarray, " m"]) -> float:
    """Top-1 or mean average precision on held-out labeled images, 0 to 1, the mean over the folds."""
    (known, labels), (predict, _) = train, METHODS[method]
    scores = []
    for fold in range(FOLDS):
        held = torch.from_numpy(folds == fold).to(labels.device)
        predicted = predict(known[~held], labels[~held], known[held], classes)
        scores.append(accuracy_or_map(predicted, labels[held]))
    return float(np.mean(scores))


def frozen_head(method: str, train: LabeledFeatures, classes: int) -> Head:
    """Fit the head of a candidate to all labeled images; `ridge` or `probe`."""
    return _HEADS[method](*train, classes)


def start_from_head(model: nn.Module, head: Head) -> None:
    """Put a fitted head on a classifier (LP-FT; Kumar et al., ICLR 2022, arXiv 2202.10054)."""
    layer: Any = model.get_classifier()  # type: ignore[operator]
    with torch.no_grad():
        layer.weight.copy_(head.weight)
        layer.bias.copy_(head.bias)


def takes_a_head(model: Any) -> bool:
    """Whether a classifier ends in a linear layer, whose input timm gives."""
    return hasattr(model, "forward_head") and isinstance(model.get_classifier(), nn.Linear)


def _probe(features: Tensor, labels: Labels, classes: int) -> Head:
    return probe_head(fit_probe(features, labels, classes)[0])


_HEADS: dict[str, Callable[..., Head]] = {"ridge": ridge_head, "probe": _probe}


def _by_head(method: str) -> Predict:
    def predict(known: Tensor, labels: Labels, queries: Tensor, classes: int) -> Predictions:
        return predictions(_HEADS[method](known, labels, classes).logits(queries), labels)

    return predict


METHODS: dict[str, tuple[Predict, float]] = {
    "ridge": (_by_head("ridge"), 0.0),
    "knn": (knn_predict, HALF),
    "probe": (_by_head("probe"), 0.0),
}
"""How each predicts, and the score from which a class of multi-label data counts as predicted."""
