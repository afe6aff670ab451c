"""The methods of `evaluate`: each is fitted to the train split of frozen features and scored on the val split."""

import torch

from mae_kit.data.index.labels import draw_per_class, smallest_class
from mae_kit.evaluation.bootstrap import Score, score_classes, score_sets
from mae_kit.evaluation.fewshot import fit_ridge
from mae_kit.evaluation.knn import knn_predict
from mae_kit.evaluation.labeled_features import FeatureSplits
from mae_kit.evaluation.predictions import Labels, Predictions, are_sets, concatenate, predictions
from mae_kit.evaluation.probe import probe_predict

HALF = 0.5  # of the neighbors' votes; a target between -1 and +1, and a logit, are even at 0
_QUERIES = 4096  # at a time


def score_knn(splits: FeatureSplits, k: int, temperature: float) -> Score:
    """Of the weighted vote of the k nearest."""
    (bank, labels), (queries, truth), classes = splits
    return score_predictions(
        knn_predict(bank, labels, queries, len(classes), k, temperature)[None], truth, len(classes), HALF
    )


def score_fewshot(splits: FeatureSplits, shots: int, seeds: int) -> Score:
    """Of ridge regression on `shots` images of each class, drawn anew for each seed; nothing where a class has fewer.

    Of images with any number of classes one may be drawn for several, and none that has no class.
    """
    (known, labels), (queries, truth), classes = splits
    names = labels.cpu().numpy()
    if smallest_class(names) < shots:
        return Score(splits.metric)
    drawn = [torch.from_numpy(draw_per_class(names, shots, seed)) for seed in range(seeds)]
    ridges = [fit_ridge(known[few], labels[few], len(classes)) for few in drawn]
    parts = queries.split(_QUERIES)
    found = (torch.stack([predictions(ridge.scores(asked), labels) for ridge in ridges]) for asked in parts)
    return score_predictions(concatenate(found, len(queries)), truth, len(classes))


def score_probe(splits: FeatureSplits, epochs: int, batch_size: int, seed: int) -> Score:
    """Of a linear layer trained on all that is known."""
    (known, labels), (queries, truth), classes = splits
    found, _ = probe_predict(known, labels, queries, len(classes), epochs, batch_size, seed)
    return score_predictions(found[None], truth, len(classes))


def score_predictions(found: Predictions, truth: Labels, classes: int, yes: float = 0.0) -> Score:
    """Score predictions, a row for each trial.

    Args:
        found: [s q] classes, or [s q k] scores of multi-label data.
        truth: Labels.
        classes: Number of classes.
        yes: Score from which a class counts as predicted in multi-label data.
    """
    predicted, true = found.cpu().numpy(), truth.cpu().numpy()
    return score_sets(predicted, true, yes) if are_sets(truth) else score_classes(predicted, true, classes)
