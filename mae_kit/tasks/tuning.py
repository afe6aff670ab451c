"""Fine-tuning with few labels: a ridge head to begin with, and learning rate and layer decay chosen by short trials."""

import logging
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import nn

from mae_kit.data.loading.loader import EvaluationBatches, TrainBatches
from mae_kit.evaluation.labeled_features import LabeledFeatures
from mae_kit.evaluation.predictions import accuracy_or_map, predictions
from mae_kit.tasks.few_labels import (
    FOLDS,
    Candidate,
    cross_validated,
    draw_folds,
    frozen_candidates,
    frozen_features,
    frozen_head,
    start_from_head,
)
from mae_kit.tasks.module import FinetuneModule
from mae_kit.training.config import Machine, Optimization, Plan
from mae_kit.training.fit import fit_quietly

log = logging.getLogger(__name__)

FIRST, FINAL = 1 / 8, 1 / 2  # of the training's steps, of the trials of all settings and of the best one
RATES, DECAYS = (1.0, 0.3), (1.0, 0.75)

Build = Callable[[nn.Module, Optimization], FinetuneModule]


class Setting(NamedTuple):
    """What trials choose.

    Attributes:
        learning_rate: At the end of the warm-up.
        layer_decay: Factor between the rates of neighboring layers.
        cross_validated: Top-1 or mean average precision on held-out labeled images, 0 to 1, the mean over the folds.
    """

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
    """

    classifier: nn.Module
    build: Build
    optimization: Optimization
    steps: int
    batches: TrainBatches
    held_out: EvaluationBatches
    classes: int
    machine: Machine

    def run(self, setting: Setting, rows: np.ndarray, held: np.ndarray, fraction: float) -> float:
        """Train on some rows for a fraction of the steps, from a ridge head; return the score on the others, 0 to 1."""
        form, batch = self.batches, min(self.batches.batch_size, len(rows))
        steps = max(1, round(fraction * self.steps))
        plan = Plan(len(rows), batch, steps * batch / len(rows), form.seed)
        module = self.build(deepcopy(self.classifier), _shortened(setting.on(self.optimization), plan.epochs))
        seen = frozen_features(module.model, _only(self.held_out, rows), module.augment.normalize)
        start_from_head(module.model, frozen_head("ridge", seen.images, self.classes))
        shape = form.image_size, form.channels, form.crop_scale
        fit_quietly(module, TrainBatches(form.index, rows, batch, *shape, form.seed), plan, self.machine)
        return _score(module, _only(self.held_out, held))


class FewLabels(NamedTuple):
    """What is known of an encoder and a few labels before the fine-tuning.

    Attributes:
        classifier: Before the first step.
        images: What its head sees of the labeled images.
        candidates: Ways to use it without fine-tuning.
        setting: The best learning rate and layer decay.
    """

    classifier: nn.Module
    images: LabeledFeatures
    candidates: list[Candidate]
    setting: Setting

    def best(self) -> str:
        """The best way by cross-validation: `finetune`, or a frozen one that a classifier can hold."""
        frozen = {one.method: one.cross_validated for one in self.candidates if one.method != "knn"}
        scores = {"finetune": self.setting.cross_validated} | frozen
        return max(scores, key=lambda method: scores[method])

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
    """Score frozen features, choose a setting, and put a ridge head on the classifier.

    Args:
        trials: How a setting is tried.
        val: Held out; reported, it chooses nothing.
        candidates: Settings to choose from.
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
        _must_surpass(found[0], frozen_features(untrained, trials.held_out, normalize).images, classes, folds)
    setting = known or tune(trials, candidates, rows, folds)
    start_from_head(trials.classifier, frozen_head("ridge", images, classes))
    return FewLabels(before, images, found, setting)


def settings(optimization: Optimization, batch_size: int, pretrained: bool) -> list[Setting]:
    """What is tried: the recipe's setting, a lower learning rate, and of an encoder another layer decay."""
    peak, own = optimization.peak(batch_size), optimization.layer_decay
    decays = (own, *[decay for decay in DECAYS if abs(decay - own) > 0.1][:1]) if pretrained else (own,)
    return [Setting(peak * rate, decay) for rate in RATES for decay in decays]


def tune(
    trials: Trials, candidates: list[Setting], rows: Int64[np.ndarray, " m"], folds: Int64[np.ndarray, " m"]
) -> Setting:
    """Try all settings briefly on one fold; return the best, cross-validated in longer trials.

    These are not brief, or a training that needs its time would lose to frozen features. All trials together take some
    1.3 times as long as the training.
    """

    def tried(setting: Setting, fold: int, fraction: float) -> float:
        return trials.run(setting, rows[folds != fold], rows[folds == fold], fraction)

    log.info(f"fine-tuning with {len(candidates)} settings in short trials, then with the best on {FOLDS} folds")
    best = max(candidates, key=lambda one: tried(one, 0, FIRST))
    score = float(np.mean([tried(best, fold, FINAL) for fold in range(FOLDS)]))
    rate, decay, _ = best
    log.info(f"fine-tuned, learning rate {rate:.2g}, layer decay {decay:g}: {score:.1%} by cross-validation")
    return best._replace(cross_validated=score)


def _must_surpass(ridge: Candidate, untrained: LabeledFeatures, classes: int, folds: Int64[np.ndarray, " m"]) -> None:
    fresh = cross_validated(ridge.method, untrained, classes, folds)
    if ridge.cross_validated <= fresh:
        log.warning(
            f"the encoder has learned nothing that helps here: ridge regression on its frozen features scores "
            f"{ridge.cross_validated:.1%}, on those of untrained weights {fresh:.1%}; pretrain for longer"
        )


def _shortened(optimization: Optimization, epochs: float) -> Optimization:
    warmup = optimization.warmup_epochs / optimization.epochs * epochs
    floor = optimization.min_learning_rate if optimization.decay != "steps" else 0.0
    return replace(optimization, epochs=epochs, warmup_epochs=warmup, decay="cosine", steps=(), min_learning_rate=floor)


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
