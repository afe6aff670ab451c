"""Labeled images to train a classifier on, and those to score it on."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from mae_kit.data.index.exclusions import Kept, kept
from mae_kit.data.index.labels import class_counts, common_classes, draw_per_class, must_be_apart, smallest_class
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.resolve import resolve_pair
from mae_kit.data.transforms.augment import IMAGENET_MEAN, IMAGENET_STD
from mae_kit.encoders.timm_models import pair
from mae_kit.errors import UserError
from mae_kit.tasks.classifier import Classifier, ModelSpec, build_classifier
from mae_kit.tasks.config import FinetuneData
from mae_kit.training.config import Machine, Optimization, Plan
from mae_kit.training.fit import this_replica
from mae_kit.training.samples import Stream, fitting_batch
from mae_kit.weights.config import ModelConfig

log = logging.getLogger(__name__)


class Labeled(NamedTuple):
    """What a fine-tuning learns from and is scored on.

    Attributes:
        stream: Training images in their order.
        val: Shards to score on.
        classes: Names, common to both.
        optimization: Of the recipe, as long as so few images need it.
    """

    stream: Stream
    val: Index
    classes: list[str]
    optimization: Optimization


Names = tuple[str, str]
"""What the user called the shards to learn from and to score on."""


def open_labeled(
    data: FinetuneData,
    optimization: Optimization,
    machine: Machine,
    seed: int,
    classes_of: Callable[[Index, Index, Names], list[str]] = common_classes,
    rows_of: Callable[[Index, Kept, FinetuneData, int], np.ndarray] | None = None,
) -> Labeled:
    """Open labeled shards; a batch is no larger than the training set, and the run has the recipe's `min_steps`.

    Args:
        data: Where they are.
        optimization: Of the recipe.
        machine: Its cache.
        seed: Of what is drawn.
        classes_of: Returns the classes that train and val have in common.
        rows_of: Chooses the rows to train on; by default those with a label.

    Raises:
        UserError: No such images, labels or classes, or too few of them.
    """
    cache = machine.shard_cache()
    pair_of_shards = resolve_pair(data.path, data.val, machine.pack, cache)
    train, val = (open_index(shards, cache=cache) for shards in pair_of_shards)
    train.check_mix_shards(data.mix_shards)
    must_be_apart(train, val, pair_of_shards)
    classes = classes_of(train, val, pair_of_shards)
    replica = this_replica(machine, data.batch_size)
    samples = kept(train, data.exclude)
    rows = (rows_of or _training_rows)(train, samples, data, seed)
    counts = class_counts(train, rows, len(classes)).tolist()
    absent = [name for name, count in zip(classes, counts, strict=True) if not count and not rows_of]
    if absent:
        log.warning(f"no training image shows {', '.join(absent[:5])}{', ...' * (len(absent) > 5)}")
    batch = fitting_batch(data, data.path, len(rows), replica)
    longer = optimization.of_min_steps(len(rows), batch)
    plan = Plan(len(rows), batch, longer.epochs, seed, samples.fingerprint, train.contents, data.mix_shards)
    return Labeled(Stream(train, rows, plan, replica), val, classes, longer)


def _training_rows(index: Index, samples: Kept, data: FinetuneData, seed: int) -> np.ndarray:
    """Rows to train on: all labeled ones that are kept, or the first `labels_per_class` a class in a keyed order.

    Raises:
        UserError: A class has fewer, or images have several.
    """
    if data.labels_per_class and index.multi_label:
        what = f"data.labels_per_class needs one label per image, images of {data.path} have any number"
        raise UserError("data.labels_per_class.several", what, "leave it out, or pack fewer images")
    rows = np.intersect1d(index.labeled(), samples.rows)
    if data.labels_per_class:
        labels = index.label[rows]
        short = smallest_class(labels)
        if short < data.labels_per_class:
            raise UserError(
                "data.labels_per_class.too_many",
                f"data.labels_per_class {data.labels_per_class}, but a class of {data.path} has {short} images",
                f"give --data.labels_per_class {short} or less",
            )
        rows = rows[draw_per_class(labels, data.labels_per_class, seed)]
    return rows


def normalization(data: FinetuneData, built: Classifier) -> tuple[list[float], list[float]]:
    """Mean and std of each channel: the recipe's, else the weights', else ImageNet's.

    Raises:
        UserError: There are not as many of the one as of the other.
    """
    mean, std = data.mean or built.mean or IMAGENET_MEAN, data.std or built.std or IMAGENET_STD
    if len(mean) != len(std):
        what = f"data.mean has {len(mean)} values and data.std {len(std)}"
        raise UserError("data.mean.one", what, "give both, one value per channel, as `mae-kit shard` prints them")
    return mean, std


def build_with_record(
    data: FinetuneData, encoder: Any, spec: ModelSpec | None, outputs: list[str], drop_path: float
) -> tuple[nn.Module, ModelConfig]:
    """A model with an output for each of these names, and what is known of it.

    Args:
        data: Of the recipe.
        encoder: As `load_encoder` returns it; None to start without.
        spec: As of `build_classifier`.
        outputs: Names of the classes.
        drop_path: Stochastic depth rate of the last block, 0 to 1.
    """
    known = encoder.pretrained_cfg if encoder else None
    size = pair(data.image_size)
    channels = len(data.mean or (known.mean if known else IMAGENET_MEAN))
    built = build_classifier(spec, len(outputs), encoder, drop_path, size, channels, outputs)
    new = f"newly initialized: {', '.join(built.fresh)}"
    log.info(f"{built.loaded} tensors loaded; {new}" if built.loaded else "training from scratch")
    mean, std = normalization(data, built)
    name = known.model if known else spec.name  # type: ignore[union-attr]
    trained = own_args(known.model_args) if known else {}
    args = trained | (spec.args if spec else {})
    objective, step = (known.objective, known.step) if known else ("none", 0)
    return built.model, ModelConfig(name, args, mean, std, objective, step, image_size=size, classes=outputs)


def own_args(model_args: dict[str, Any]) -> dict[str, Any]:
    """Those that a recipe would name; size and channels are the images'."""
    return {name: value for name, value in model_args.items() if name not in ("img_size", "in_chans")}


def check_unused(given: Any, default: Any, names: tuple[str, ...], group: str) -> None:
    """Raises UserError where a setting is given that a task has no use for."""
    for name in names:
        if getattr(given, name) != getattr(default, name):
            raise UserError(f"{group}.{name}", f"{group}.{name} has no effect on this task", "leave it out")
