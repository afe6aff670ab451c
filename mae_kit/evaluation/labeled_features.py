"""Frozen features with labels: a training and a validation split."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

from mae_kit.data.index.labels import common_classes
from mae_kit.data.index.open import Index
from mae_kit.data.index.statistics import warn_of_mismatch
from mae_kit.evaluation.bootstrap import MAP, TOP1
from mae_kit.evaluation.features import MEAN, Features, FeatureSource, extract_features
from mae_kit.evaluation.predictions import Labels, are_sets
from mae_kit.evaluation.rows import Matrix
from mae_kit.parallel import Engine

HELD = 2**28  # bytes of features, of both splits and all sources together, that are held in memory


class LabeledFeatures(NamedTuple):
    """Features of labeled images.

    Attributes:
        features: [m d], on the GPU if there is one; on disk if they are many.
        labels: [m] class 0 .. k - 1, or [m k] True for each class of an image.
    """

    features: Matrix
    labels: Labels


class FeatureSplits(NamedTuple):
    """What a method is fitted to and scored on.

    Attributes:
        train: Known to the method.
        val: Unseen.
        classes: Names of the k classes.
    """

    train: LabeledFeatures
    val: LabeledFeatures
    classes: list[str]

    @property
    def metric(self) -> str:
        """The headline metric: `top1`, or `map` for multi-label data."""
        return MAP if are_sets(self.val.labels) else TOP1


def feature_splits(
    encoder: Any,
    train: Index,
    val: Index,
    layers: Iterable[int] = (),
    workers: int = 0,
    engine: Engine = "processes",
    names: tuple[str, str] = ("train", "val"),
) -> dict[FeatureSource, FeatureSplits]:
    """Extract the features of labeled images, or read them where they have been before.

    Args:
        encoder: As `load_encoder` returns it.
        train: Labeled shards.
        val: Labeled shards.
        layers: Blocks of a ViT or stages of a Swin, from 1; by default the last.
        workers: Processes; 0 = one a core. Where there is a GPU, they decode for it; 0 = up to 8.
        engine: Where shards are worked on.
        names: Of the two in messages.

    Returns:
        By source: layers ascending, the mean of the patch tokens before the class token.

    Raises:
        UserError: There is no such layer, no labels, or the splits have different classes.
    """
    indexes = train, val
    classes = common_classes(train, val, names)
    known = encoder.pretrained_cfg
    warn_of_mismatch((known.mean, known.std), train, "the encoder normalizes with")
    features = [extract_features(encoder, index, workers, layers, engine) for index in indexes]
    sources = sorted(features[0].values, key=lambda source: (source.layer, source.token != MEAN))
    few = sum(rows.nbytes for split in features for rows in split.values.values()) <= HELD
    pairs = {
        source: [_labeled(*each, source, few) for each in zip(indexes, features, strict=True)] for source in sources
    }
    return {source: FeatureSplits(known, unseen, classes) for source, (known, unseen) in pairs.items()}


def _labeled(index: Index, features: Features, source: FeatureSource, few: bool) -> LabeledFeatures:
    places = np.flatnonzero(np.isin(features.rows, index.labeled()))
    rows, labels = features.values[source].only(places), index.labels(features.rows[places])
    return LabeledFeatures(rows.read() if few else rows, torch.from_numpy(labels).to(rows.device))
