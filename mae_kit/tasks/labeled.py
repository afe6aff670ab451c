"""What a task starts from: labeled images to train on and to score on, and a model with what is recorded of it."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mae_kit.data.index.exclusions import kept
from mae_kit.data.index.labels import (
    class_counts,
    common_classes,
    draw_fraction,
    draw_per_class,
    must_be_apart,
    smallest_class,
)
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.resolve import resolve_pair
from mae_kit.data.transforms.augment import IMAGENET_MEAN, IMAGENET_STD
from mae_kit.encoders import Encoder
from mae_kit.encoders.timm_models import create, pair
from mae_kit.errors import UserError
from mae_kit.tasks.classifier import Classifier, ModelSpec, build_classifier
from mae_kit.tasks.config import FinetuneData
from mae_kit.training.config import Machine, Optimization, Plan
from mae_kit.training.fit import this_replica
from mae_kit.training.samples import Stream, fitting_batch
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.pretrained import AnyTimm, classifier_args

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
    rows_of: Callable[[Index], np.ndarray] = Index.labeled,
) -> Labeled:
    """Open labeled shards; a batch is no larger than the training set, and the run has the recipe's `min_steps`.

    Args:
        data: Where they are.
        optimization: Of the recipe.
        machine: Its cache.
        seed: Of what is drawn.
        classes_of: Returns the classes that train and val have in common.
        rows_of: Returns the rows that have labels of the task; only those with one label can be drawn by class.

    Raises:
        UserError: No such images, labels or classes, too few of them, or a setting without effect on them.
    """
    whole = rows_of is not Index.labeled
    if whole:
        check_unused(data, FinetuneData(data.path, 1, 1), ("crop_scale", "crop_pct", "labels_per_class"), "data")
    cache = machine.shard_cache()
    pair_of_shards = resolve_pair(data.path, data.val, machine.pack, cache)
    train, val = (open_index(shards, cache=cache) for shards in pair_of_shards)
    train.check_mix_shards(data.mix_shards)
    must_be_apart(train, val, (data.path, data.val or data.path))
    classes = classes_of(train, val, pair_of_shards)
    replica = this_replica(machine, data.batch_size)
    samples = kept(train, data.exclude)
    rows = np.intersect1d(rows_of(train), samples.rows)
    if data.labels_per_class:
        rows = _drawn(train, rows, data, data.labels_per_class, seed)
    if data.labels_fraction:
        rows = rows[draw_fraction(len(rows), data.labels_fraction, seed)]
    counts = class_counts(train, rows, len(classes)).tolist()
    absent = [name for name, count in zip(classes, counts, strict=True) if not count and not whole]
    if absent:
        log.warning(f"no training image shows {', '.join(absent[:5])}{', ...' * (len(absent) > 5)}")
    batch = fitting_batch(data, data.path, len(rows), replica)
    longer = optimization.of_min_steps(len(rows), batch)
    plan = Plan(len(rows), batch, longer.epochs, seed, samples.fingerprint, train.contents, data.mix_shards)
    return Labeled(Stream(train, rows, plan, replica), val, classes, longer)


def _drawn(index: Index, rows: np.ndarray, data: FinetuneData, count: int, seed: int) -> np.ndarray:
    """Rows of the first `count` images of each class in a keyed order.

    Raises:
        UserError: A class has fewer, or images have several.
    """
    if index.multi_label:
        what = f"data.labels_per_class needs one label per image, but images of {data.path} have any number of labels"
        raise UserError("data.labels_per_class.several", what, "leave it out, or pack fewer images")
    short = smallest_class(index.label[rows])
    if short < count:
        raise UserError(
            "data.labels_per_class.too_many",
            f"data.labels_per_class {count}, but a class of {data.path} has {short} images",
            f"give --data.labels_per_class {short} or less",
        )
    return rows[draw_per_class(index.label[rows], count, seed)]


def build_with_record(
    data: FinetuneData,
    encoder: Encoder | AnyTimm | None,
    spec: ModelSpec | None,
    outputs: list[str],
    drop_path: float,
    headless: bool = False,
) -> tuple[nn.Module, ModelConfig]:
    """A model with an output for each of these names, and what is known of it.

    Args:
        data: Of the recipe.
        encoder: As `load_encoder` returns it; None to start without.
        spec: As of `build_classifier`.
        outputs: Names of the classes, or of numbers.
        drop_path: Stochastic depth rate of the last block, 0 to 1.
        headless: Build a backbone for a head of one's own, as `build_backbone`.

    Raises:
        UserError: As `build_classifier`.
    """
    known: ModelConfig | None = getattr(encoder, "pretrained_cfg", None)
    size = pair(data.image_size)
    channels = len(data.mean or (known.mean if known else IMAGENET_MEAN))
    if headless:
        built = build_backbone(spec, encoder, drop_path, size, channels)
        own = spec or (ModelSpec(encoder.name, encoder.model_args) if encoder else None)
        args = backbone_args(built.model, known, own, size, channels)
    else:
        built = build_classifier(spec, len(outputs), encoder, drop_path, size, channels, outputs)
        args = own_args(known.model_args if known else {}) | (spec.args if spec else {})
    fresh = ", ".join([*built.fresh, *["the head"] * headless])
    log.info(f"{built.loaded} tensors loaded; newly initialized: {fresh}" if built.loaded else "training from scratch")
    mean, std = _normalization(data, built)
    name = known.model if known else encoder.name if encoder else spec.name  # type: ignore[union-attr]
    objective, step = (known.objective, known.step) if known else ("none", 0)
    return built.model, ModelConfig(name, args, mean, std, objective, step, image_size=size, classes=outputs)


def own_args(model_args: dict[str, Any]) -> dict[str, Any]:
    """Those that a recipe would name; size and channels are the images'."""
    return {name: value for name, value in model_args.items() if name not in ("img_size", "in_chans")}


def _normalization(data: FinetuneData, built: Classifier) -> tuple[list[float], list[float]]:
    """Mean and std of each channel: the recipe's, else the weights', else ImageNet's.

    Raises:
        UserError: There are not as many of the one as of the other.
    """
    mean, std = data.mean or built.mean or IMAGENET_MEAN, data.std or built.std or IMAGENET_STD
    if len(mean) != len(std):
        what = f"data.mean has {len(mean)} values and data.std {len(std)}"
        raise UserError("data.mean.one", what, "give both, one value per channel, as `mae-kit shard` prints them")
    return mean, std


def build_backbone(
    spec: ModelSpec | None,
    encoder: Encoder | AnyTimm | None,
    drop_path: float,
    image_size: tuple[int, int],
    channels: int,
) -> Classifier:
    """A classifier without a head: the tokens of a ViT or BEiT are not pooled, and keep their last norm.

    Raises:
        UserError: As `build_classifier`.
    """
    name = encoder.name if encoder is not None else spec.name if spec else None
    if name is None:
        raise UserError("model.name", "model.name is missing", "name one of timm's models, or give an encoder")
    with torch.device("meta"):
        tokens = isinstance(create(name, {}, "vit_*"), VisionTransformer | Beit)
    args = (spec.args if spec else {}) | ({"global_pool": ""} if tokens else {})
    whole = ModelSpec(name, args, spec.weights if spec else None)
    return build_classifier(whole, 0, encoder, drop_path, image_size, channels)


def backbone_args(
    backbone: Any, known: ModelConfig | None, spec: ModelSpec | None, image_size: tuple[int, int], channels: int
) -> dict[str, Any]:
    """Timm's arguments that rebuild a backbone of these origins."""
    args = classifier_args(spec.name, {}) if spec and not known else {}
    args |= (known.model_args if known else {}) | (spec.args if spec else {}) | {"in_chans": channels}
    args = {name: value for name, value in args.items() if name != "img_size"}
    if backbone.pretrained_cfg["fixed_input_size"]:
        args["img_size"] = list(image_size)
    return args | ({"global_pool": ""} if isinstance(backbone, VisionTransformer | Beit) else {})


def check_unused(given: Any, default: Any, names: tuple[str, ...], group: str) -> None:
    """Raises UserError where a setting is given that a task has no use for."""
    for name in names:
        if getattr(given, name) != getattr(default, name):
            raise UserError(f"{group}.{name}", f"{group}.{name} has no effect on this task", "leave it out")
