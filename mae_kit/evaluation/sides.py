"""Frozen features with labels: those to learn from, and those to score on."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from mae_kit.data.index import Index, open_index
from mae_kit.data.labels import common_classes
from mae_kit.data.remote import Place
from mae_kit.encoder_file import FILE, FORMAT, save_encoder
from mae_kit.engines import Engine
from mae_kit.errors import UserError
from mae_kit.evaluation.features import MEAN, Features, Source, extract_features
from mae_kit.formats.ours import kind_of
from mae_kit.formats.pretrained import without_head
from mae_kit.formats.recognition import read_pretrained


class Side(NamedTuple):
    """Features of labelled images.

    Attributes:
        features: On the GPU if there is one.
        labels: 0 .. classes - 1.
    """

    features: Float32[Tensor, "m d"]
    labels: Int64[Tensor, " m"]


class Sides(NamedTuple):
    """What a method learns from and is scored on.

    Attributes:
        train: The known.
        val: The unseen.
        classes: Number of classes.
    """

    train: Side
    val: Side
    classes: int


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
        encoder: A run, or any file or folder that `mae-kit import` reads.
        train: Labelled shards.
        val: Labelled shards.
        layers: Blocks of a ViT or stages of a Swin, from 1; by default the last.
        workers: Processes; 0 = one a core, or a single one where there is a GPU.
        engine: Where shards are worked on.

    Raises:
        UserError: No plain vision transformer and no Swin, no such layer, no shards, no labels, other classes, or
            several an image.
    """
    indexes = [open_index(shards) for shards in (train, val)]
    classes = len(common_classes(indexes[0], indexes[1], (str(train), str(val))))
    if indexes[0].multi_label:
        what = f"images of {train} have any number of classes, frozen features are asked for one label each"
        raise UserError(what, "score such sets by `mae-kit finetune`")
    with encoder_folder(encoder) as folder:
        features = [extract_features(folder, index, workers, layers, engine) for index in indexes]
    sources = sorted(features[0].values, key=lambda source: (source.layer, source.token != MEAN))
    pairs = {source: [_side(*each, source) for each in zip(indexes, features, strict=True)] for source in sources}
    return {source: Sides(known, unseen, classes) for source, (known, unseen) in pairs.items()}


@contextmanager
def encoder_folder(path: Path) -> Iterator[Path]:
    """Where an encoder of ours lies; from any other file one is made, for as long as it is needed."""
    if kind_of(path / FILE if path.is_dir() else path) == FORMAT:
        yield path
        return
    weights = without_head(read_pretrained(path))
    with TemporaryDirectory() as folder:
        save_encoder(Path(folder), dict(weights.tensors), weights.encoder)
        yield Path(folder)


def _side(index: Index, features: Features, source: Source) -> Side:
    labels = index.label[features.rows]
    values = features.values[source][labels >= 0]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Side(torch.from_numpy(values).to(device), torch.from_numpy(labels[labels >= 0]).to(device))
