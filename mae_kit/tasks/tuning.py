"""Fine-tuning with few labels: the recipe or a variant of it, whichever whole trainings on the labeled images favor."""

import json
import logging
import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import nn

from mae_kit.data.loading.loader import EvaluationBatches, TrainBatches
from mae_kit.evaluation.labeled_features import LabeledFeatures
from mae_kit.evaluation.predictions import accuracy_or_map, predictions
from mae_kit.files.durable import replace_text
from mae_kit.files.run_records import read_record
from mae_kit.tasks.few_labels import (
    FEW,
    FOLDS,
    LEAST,
    Candidate,
    cross_validated,
    draw_folds,
    frozen_candidates,
    frozen_features,
    frozen_head,
    start_from_head,
    takes_a_head,
)
from mae_kit.tasks.module import FinetuneModule
from mae_kit.training.config import Machine, Optimization, Plan
from mae_kit.training.fit import fit_quietly
from mae_kit.training.samples import Stream

log = logging.getLogger(__name__)

LOWER = 0.3  # times the recipe's learning rate, from a ridge head

Build = Callable[[nn.Module, Optimization], FinetuneModule]


class Setting(NamedTuple):
    """What trials choose.

    Attributes:
        head: recipe = new, as without tuning; ridge = fitted to the frozen features (LP-FT).
        learning_rate: At the end of the warm-up.
        layer_decay: Factor between the rates of neighboring layers.
        cross_validated: Top-1 or mean average precision on held-out labeled images, 0 to 1, the mean over the folds.
    """

    head: Literal["recipe", "ridge"]
    learning_rate: float
    layer_decay: float
    cross_validated: float = 0.0

    def on(self, optimization: Optimization) -> Optimization:
        """The optimization with this learning rate and layer decay."""
        return replace(
            optimization,
            learning_rate=self.learning_rate,
            base_learning_rate=None,
            layer_decay=self.layer_decay,
            min_learning_rate=min(optimization.min_learning_rate, self.learning_rate),
        )

    def __str__(self) -> str:
        rates = f"learning rate {self.learning_rate:.2g}, layer decay {self.layer_decay:g}"
        return f"{rates}, head {'of ridge regression' if self.head == 'ridge' else 'new'}"


class Trials(NamedTuple):
    """What each trial is made of.

    Attributes:
        classifier: Before the first step; trials train copies.
        build: Makes the module of a training.
        optimization: Of the training.
        steps: Of the training.
        batches: Of the training.
        held_out: The same images, centrally cropped.
        classes: Number of classes.
        machine: Where and how it is computed.
        kept: The file of the scores so far, in the folder of the run.
    """

    classifier: nn.Module
    build: Build
    optimization: Optimization
    steps: int
    batches: TrainBatches
    held_out: EvaluationBatches
    classes: int
    machine: Machine
    kept: Path

    def run(self, setting: Setting, rows: np.ndarray, held: np.ndarray) -> float:
        """Train on some rows for as many steps as the training has; return the score on the others, 0 to 1."""
        form, batch = self.batches, min(self.batches.batch_size, len(rows))
        plan = Plan(len(rows), batch, self.steps * batch / len(rows), form.seed)
        optimization = setting.on(self.optimization).lasting(plan.epochs)
        module = self.build(deepcopy(self.classifier), optimization)
        if setting.head == "ridge":
            seen = frozen_features(module.model, _only(self.held_out, rows), module.augment.normalize)
            start_from_head(module.model, frozen_head("ridge", seen.images, self.classes))
        shape = form.image_size, form.channels, form.crop_scale
        hint = f"continue with --resume {self.kept.parent}"
        fit_quietly(module, TrainBatches(form.index, rows, batch, *shape, form.seed), plan, self.machine, hint=hint)
        return _score(module, _only(self.held_out, held))


class FewLabels(NamedTuple):
    """What is known of an encoder and a few labels before the fine-tuning.

    Attributes:
        classifier: Before the first step.
        images: What its head sees of the labeled images.
        candidates: Ways to use it without fine-tuning.
        setting: The best of the fine-tuning.
    """

    classifier: nn.Module
    images: LabeledFeatures
    candidates: list[Candidate]
    setting: Setting

    def best(self) -> str:
        """`finetune`, or a frozen way that a classifier can hold and that cross-validation clearly prefers."""
        frozen = {one.method: one.cross_validated for one in self.candidates if one.method != "knn"}
        scores = {"finetune": self.setting.cross_validated} | frozen
        return list(scores)[preferred(list(scores.values()), len(self.images.labels))]

    def frozen(self, method: str, classes: int) -> nn.Module:
        """The classifier with a head on frozen features, in eval mode."""
        start_from_head(self.classifier, frozen_head(method, self.images, classes))
        return self.classifier.eval()


def study(
    trials: Trials,
    val: EvaluationBatches,
    candidates: list[Setting],
    known: Setting | None = None,
    untrained: nn.Module | None = None,
) -> FewLabels:
    """Score frozen features, choose a setting, and put its head on the classifier.

    Args:
        trials: How a setting is tried.
        val: Held out; reported, it chooses nothing.
        candidates: Settings to choose from, the recipe's first.
        known: The setting, where it was chosen before.
        untrained: The classifier with fresh weights, which the encoder should surpass.
    """
    before = deepcopy(trials.classifier)
    normalize = trials.build(before, trials.optimization).augment.normalize
    rows, images = frozen_features(before, trials.held_out, normalize)
    folds, classes = draw_folds(images.labels, trials.batches.seed), trials.classes
    found = frozen_candidates(images, frozen_features(before, val, normalize).images, classes, folds)
    for one in found:
        log.info(f"frozen, {one.method}: {one.cross_validated:.1%} by {FOLDS}-fold cross-validation")
    if untrained is not None:
        must_surpass(before, untrained, trials.held_out, normalize, classes, trials.batches.seed)
    setting = known or tune(trials, candidates, rows, folds)
    if setting.head == "ridge":
        start_from_head(trials.classifier, frozen_head("ridge", images, classes))
    return FewLabels(before, images, found, setting)


def has_few(classifier: nn.Module, stream: Stream) -> bool:
    """Whether so few images are labeled that frozen features can be judged on them at once, in this process."""
    return LEAST <= len(stream.rows) <= FEW and stream.replica.world_size == 1 and takes_a_head(classifier)


def can_tune(classifier: nn.Module, stream: Stream) -> bool:
    """Whether trials have something to do; logs the reason where they have not."""
    images = len(stream.rows)
    reasons = {
        f"{images:,} labeled images are more than {FEW:,}": images > FEW,
        f"{images} labeled images are fewer than {LEAST}": images < LEAST,
        "its trials run on one device: give --devices 1": stream.replica.world_size > 1,
        "this model has no linear layer as its head": not takes_a_head(classifier),
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if found:
        log.info(f"fine-tuned by the recipe, without --tune auto: {found[0]}")
    return not found


def settings(optimization: Optimization, batch_size: int, pretrained: bool) -> list[Setting]:
    """What is tried: the recipe's setting, and of an encoder one that changes it less: a ridge head, a lower rate."""
    peak, decay = optimization.peak(batch_size), optimization.layer_decay
    own, gentle = Setting("recipe", peak, decay), Setting("ridge", LOWER * peak, decay)
    return [own, gentle] if pretrained else [own]


def announce(candidates: list[Setting]) -> None:
    """Say how many trainings precede the one that was asked for."""
    count = len(candidates) * FOLDS
    log.info(f"--tune auto: {count} training runs on parts of the labeled images, then one on all of them")


def tune(
    trials: Trials, candidates: list[Setting], rows: Int64[np.ndarray, " m"], folds: Int64[np.ndarray, " m"]
) -> Setting:
    """Cross-validate each setting in trainings of full length; return the recipe's, or one that is clearly better.

    Shorter trials would favor frozen features over trainings that need their time (recipes/LOG.md). Those of a setting
    take as long as two trainings where a batch holds all labeled images, else as three.
    """
    announce(candidates)
    known = read_record(trials.kept).get("scores", {})
    planned = [(setting, fold, f"{setting}, fold {fold}") for setting in candidates for fold in range(FOLDS)]
    missing = [(setting, fold, name) for setting, fold, name in planned if name not in known]
    started = time.monotonic()
    for number, (setting, fold, name) in enumerate(missing, 1):
        known[name] = trials.run(setting, rows[folds != fold], rows[folds == fold])
        replace_text(trials.kept, json.dumps({"scores": known}))
        minutes = (time.monotonic() - started) / number * (len(missing) - number) / 60
        log.info(f"trial {number} of {len(missing)}, {setting}: {known[name]:.1%}; about {minutes:.2g} more minutes")
    tried = []
    for setting in candidates:
        scores = [known[name] for one, _, name in planned if one == setting]
        tried.append(setting._replace(cross_validated=float(np.mean(scores))))
        log.info(f"fine-tuned, {tried[-1]}: {tried[-1].cross_validated:.1%} by cross-validation")
    return tried[preferred([one.cross_validated for one in tried], len(rows))]


def preferred(scores: list[float], images: int) -> int:
    """Index of the best score; 0 unless that is more than a standard error above the first (Breiman et al., 1984).

    Args:
        scores: Cross-validated, 0 to 1; the first is that of the default.
        images: That each was measured on.
    """
    best, error = int(np.argmax(scores)), math.sqrt(scores[0] * (1 - scores[0]) / images)
    return best if scores[best] - scores[0] > error else 0


def must_surpass(
    classifier: nn.Module,
    untrained: nn.Module,
    held_out: EvaluationBatches,
    normalize: nn.Module,
    classes: int,
    seed: int,
) -> None:
    """Warn where the frozen features of an encoder are worth no more than those of fresh weights."""
    known, fresh = (frozen_features(model, held_out, normalize).images for model in (classifier, untrained))
    folds = draw_folds(known.labels, seed)
    warn_of_no_gain(*(cross_validated("ridge", images, classes, folds) for images in (known, fresh)))


def warn_of_no_gain(learned: float, before: float) -> None:
    """Warn if an encoder scores no more than before its training."""
    if learned <= before:
        log.warning(
            f"the encoder has learned nothing that helps here: ridge regression on its frozen features scores "
            f"{learned:.1%}, on those of untrained weights {before:.1%}; pretrain for longer"
        )


@torch.no_grad()
def _score(module: FinetuneModule, held_out: EvaluationBatches) -> float:
    model, found, truth = module.scored().eval(), [], []
    device = next(model.parameters()).device
    normalize = module.augment.to(device).normalize
    for batch in held_out:
        found.append(predictions(model(normalize(batch.images.to(device))).float().cpu(), batch.labels))
        truth.append(batch.labels)
    return accuracy_or_map(torch.cat(found), torch.cat(truth))


def _only(batches: EvaluationBatches, rows: np.ndarray) -> EvaluationBatches:
    b = batches
    return EvaluationBatches(b.index, rows, b.batch_size, b.image_size, b.channels, *b.crop)
