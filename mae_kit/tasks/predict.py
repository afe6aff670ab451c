"""Predictions of a saved classifier on labeled shards."""

import torch

from mae_kit.data.index.open import Index
from mae_kit.data.loading.loader import EvaluationBatches
from mae_kit.data.transforms.augment import Normalize
from mae_kit.errors import UserError
from mae_kit.evaluation.predictions import Labels, Predictions, predictions
from mae_kit.weights.native import SavedClassifier

BATCH = 128


def classify(classifier: SavedClassifier, index: Index, name: str) -> tuple[Predictions, Labels]:
    """Predict the labeled images of an index, at the size and with the crop of the classifier's training.

    Args:
        classifier: As `load_classifier` returns it; it is moved to the GPU if there is one.
        index: Labeled shards, with the classes of the classifier.
        name: Of the shards in messages.

    Returns:
        Predictions and labels of the images that decode: classes [q], or probabilities [q k] of multi-label data.

    Raises:
        UserError: `data.classes`: the shards have other classes, or labels of the other kind.
    """
    config, device = classifier.config, "cuda" if torch.cuda.is_available() else "cpu"
    if index.multi_label != config.multi_label or (index.classes or config.classes) != config.classes:
        what = f"{name} does not have the classes of the classifier ({', '.join(config.classes[:3])}, ...)"
        raise UserError("data.classes.of_model", what, "give images labeled with these classes")
    model, normalize = classifier.to(device), Normalize(config.mean, config.std).to(device)
    found, truth = [], []
    with torch.no_grad():
        for batch in EvaluationBatches(index, index.labeled(), BATCH, config.size, config.channels, *config.crop):
            scores = model(normalize(batch.images.to(device))).float().cpu()
            found.append(predictions(scores.sigmoid() if config.multi_label else scores, batch.labels))
            truth.append(batch.labels)
    return torch.cat(found), torch.cat(truth)
