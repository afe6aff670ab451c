"""Frozen features with labels: those to learn from, and those to score on."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mae_kit.data.index.labels import common_classes
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.remote.filesystem import Place
from mae_kit.encoders import create_encoder
from mae_kit.evaluation.bootstrap import MAP, TOP1
from mae_kit.evaluation.features import MEAN, Features, Source, extract_features
from mae_kit.evaluation.predictions import Labels, are_sets
from mae_kit.evaluation.rows import Matrix
from mae_kit.parallel import Engine
from mae_kit.weights.encoder_file import FILE, FORMAT, save_encoder
from mae_kit.weights.native import kind_of
from mae_kit.weights.parameter_names import differences, refuse
from mae_kit.weights.pretrained import without_head
from mae_kit.weights.recognize import read_pretrained
from mae_kit.weights.timm_published import architecture, is_published

HELD = 2**28  # bytes of features, of both sides and of whatever they are made, that are read at once


class Side(NamedTuple):
    """Features of labeled images.

    Attributes:
        features: On the GPU if there is one; many stay on disk and come from there.
        labels: 0 .. k - 1, or the set of these that an image has.
    """

    features: Matrix
    labels: Labels


class Sides(NamedTuple):
    """What a method learns from and is scored on.

    Attributes:
        train: The known.
        val: The unseen.
        classes: Names of the k classes.
    """

    train: Side
    val: Side
    classes: list[str]

    @property
    def metric(self) -> str:
        """What counts first in scores: `top1`, or `map` where images have any number of classes."""
        return MAP if are_sets(self.val.labels) else TOP1


def frozen_sides(
    encoder: Path,
    train: Place,
    val: Place,
    layers: Iterable[int] = (),
    workers: int = 0,
    engine: Engine = "processes",
) -> dict[Source, Sides]:
    """By what features are made of: layer after layer, `mean` of the patch tokens before `class` token.

    Args:
        encoder: A run, any file or folder that `mae-kit import` reads, or timm:NAME.
        train: Labeled shards.
        val: Labeled shards.
        layers: Blocks of a ViT or stages of a Swin, from 1; by default the last.
        workers: Processes; 0 = one a core, or a single one where there is a GPU.
        engine: Where shards are worked on.

    Raises:
        UserError: No encoder of ours is like it, there is no such layer, no shards, no labels, or other classes.
    """
    indexes = [open_index(shards) for shards in (train, val)]
    classes = common_classes(indexes[0], indexes[1], (str(train), str(val)))
    with encoder_folder(encoder) as folder:
        features = [extract_features(folder, index, workers, layers, engine) for index in indexes]
    sources = sorted(features[0].values, key=lambda source: (source.layer, source.token != MEAN))
    few = sum(rows.nbytes for side in features for rows in side.values.values()) <= HELD
    pairs = {source: [_side(*each, source, few) for each in zip(indexes, features, strict=True)] for source in sources}
    return {source: Sides(known, unseen, classes) for source, (known, unseen) in pairs.items()}


@contextmanager
def encoder_folder(path: Path) -> Iterator[Path]:
    """Where an encoder of ours lies; from any other weights one is made, for as long as it is needed.

    Raises:
        UserError: There are no such weights, or no encoder of ours is like theirs.
    """
    if kind_of(path / FILE if path.is_dir() else path) == FORMAT:
        yield path
        return
    if is_published(path):
        _tensors_of(architecture(path), {})  # before it is fetched
    weights = without_head(read_pretrained(path))
    config = weights.encoder
    own = _tensors_of(config.model, config.model_args, config.image_size)
    refuse(str(path), differences(weights.tensors, own), "give weights as they were pretrained")
    with TemporaryDirectory() as folder:
        save_encoder(Path(folder), dict(weights.tensors), config)
        yield Path(folder)


def _tensors_of(name: str, model_args: dict[str, Any], image_size: list[int] | None = None) -> dict[str, Tensor]:
    """Of one of our encoders, without memory."""
    with torch.device("meta"):
        return create_encoder(name, model_args, image_size).model.state_dict()


def _side(index: Index, features: Features, source: Source, few: bool) -> Side:
    places = np.flatnonzero(np.isin(features.rows, index.labeled()))
    rows, labels = features.values[source].only(places), index.labels(features.rows[places])
    return Side(rows.read() if few else rows, torch.from_numpy(labels).to(rows.device))
