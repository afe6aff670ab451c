"""Classification: one class for every image, or any number of classes."""

import json
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from torch import nn

from mae_kit.data.index.open import Index
from mae_kit.data.index.statistics import warn_of_mismatch
from mae_kit.data.loading.loader import EvaluationBatches, Replica, TrainBatches
from mae_kit.data.transforms.augment import Normalize
from mae_kit.encoders import Encoder
from mae_kit.encoders.image_gpt_model import TimmImageGPT
from mae_kit.evaluation.bootstrap import Score, headline, score_fraction
from mae_kit.files.durable import replace_text
from mae_kit.files.run_folder import RunFolder
from mae_kit.files.run_records import read_record
from mae_kit.objectives import IGPT
from mae_kit.tasks.classifier import ModelSpec, build_classifier, unfreeze_color_head
from mae_kit.tasks.config import Augmentation, FinetuneData
from mae_kit.tasks.few_labels import Candidate
from mae_kit.tasks.labeled import Labeled, build_with_record, open_labeled, own_args
from mae_kit.tasks.metrics import ClassificationScores, MultiLabelScores, Scores
from mae_kit.tasks.mistakes import save_mistakes
from mae_kit.tasks.module import FinetuneModule
from mae_kit.tasks.task import Task
from mae_kit.tasks.tuning import FewLabels, Setting, Trials, announce, can_tune, has_few, must_surpass, settings, study
from mae_kit.training.checkpoint import State
from mae_kit.training.config import Machine, Optimization
from mae_kit.training.fit import bytes_to_write
from mae_kit.training.ranges import NOT_NEGATIVE, check_ranges
from mae_kit.training.run import Run
from mae_kit.training.samples import Stream, some_images
from mae_kit.training.train import Job
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import save_classifier
from mae_kit.weights.pretrained import AnyTimm

log = logging.getLogger(__name__)

BATCH = 128


class Classification(Task):
    """One class for every image, or any number of classes (`mae-kit shard --labels TABLE.csv`).

    The loss is cross-entropy in the one case, a binary cross-entropy for each class in the other.

    Args:
        generative: As of `mae_kit.finetune`.
        tune: As of `mae_kit.finetune`.

    Raises:
        UserError: `generative` is negative.
    """

    def __init__(self, generative: float = 0.0, tune: Literal["auto", "none"] = "none"):
        super().__init__()
        check_ranges({"generative": generative}, generative=NOT_NEGATIVE)
        self.generative, self.tune = generative, tune

    def open(self, data: FinetuneData, optimization: Optimization, machine: Machine, seed: int) -> Labeled:
        return open_labeled(data, optimization, machine, seed)

    def model(
        self,
        data: FinetuneData,
        encoder: Encoder | AnyTimm | None,
        spec: ModelSpec | None,
        classes: list[str],
        drop_path: float,
    ) -> tuple[nn.Module, ModelConfig]:
        built, config = build_with_record(data, encoder, spec, classes, drop_path)
        return built, replace(config, crop_pct=data.crop_pct)

    def backbone(self, model: nn.Module) -> nn.Module:
        return model

    def learn(self, model: nn.Module, record: ModelConfig, stream: Stream) -> ModelConfig:
        warn_of_mismatch((record.mean, record.std), stream.index, "the classifier normalizes with")
        return replace(record, multi_label=stream.index.multi_label, scale=stream.index.scale)

    def batches(self, stream: Stream, data: FinetuneData, record: ModelConfig) -> TrainBatches:
        return stream.batches(record.size, record.channels, data.crop_scale)

    def module(
        self,
        model: nn.Module,
        record: ModelConfig,
        augmentation: Augmentation,
        optimization: Optimization,
        ema: float | None,
        seed: int,
    ) -> FinetuneModule:
        if self.generative:
            unfreeze_color_head(model)
        form = {"mean": record.mean, "std": record.std, "multi_label": record.multi_label, "augmentation": augmentation}
        own = {"ema": ema, "generative": self.generative, "seed": seed}
        return FinetuneModule(model, len(record.classes), **optimization.arguments(), **form, **own)

    def scores(self, val: Index, record: ModelConfig, every: int, replica: Replica, run: Run) -> Scores:
        mine = val.labeled()[replica.rank :: replica.world_size]
        held_out = EvaluationBatches(val, mine, BATCH, record.size, record.channels, record.crop_pct)
        kind = MultiLabelScores if record.multi_label else ClassificationScores
        return kind(held_out, len(record.classes), every, run)

    def tell(self, job: Job) -> None:
        if self.tune == "auto" and can_tune(job.module.model, job.stream):
            pretrained = job.arguments["encoder"] != "none"
            announce(settings(job.module.optimization, job.batches.batch_size, pretrained))

    def start(
        self, job: Job, record: ModelConfig, scores: Scores, run: Run, state: State | None
    ) -> tuple[Job, FewLabels | None]:
        """Find the palette of an untrained iGPT; of few labels, judge the encoder or choose their best use."""
        model, optimization, few = job.module.model, job.module.optimization, None
        _fit_palette(model, record, job.batches)
        if self.tune == "auto" and can_tune(model, job.stream):
            if not state:
                run.start(job.settings, 0, bytes_to_write(job.module))
            few = self._study(job, record, scores, run, Setting(**read_record(run.tuning)) if state else None)
            replace_text(run.tuning, json.dumps(few.setting._asdict()))
            optimization = few.setting.on(optimization)
        elif self.tune == "none" and job.arguments["encoder"] != "none" and has_few(model, job.stream):
            untrained, held_out = self._untrained(job, record), self._held_out(job, scores)
            normalize = job.module.augment.normalize
            must_surpass(model, untrained, held_out, normalize, len(record.classes), job.batches.seed)
        return replace(job, module=self._module(job, record, model, optimization)), few

    def _module(self, job: Job, record: ModelConfig, model: nn.Module, optimization: Optimization) -> FinetuneModule:
        a = job.arguments
        return self.module(model, record, a["augmentation"], optimization, a["ema"], a["seed"])

    def _study(self, job: Job, record: ModelConfig, scores: Scores, run: Run, known: Setting | None) -> FewLabels:
        """Score frozen features and choose the setting, where it is not known."""
        batches, optimization, held_out = job.batches, job.module.optimization, self._held_out(job, scores)
        build, steps = partial(self._module, job, record), job.stream.plan.steps
        classes = len(record.classes)
        how = optimization, steps, batches, held_out, classes, job.machine, run.trials
        trials = Trials(job.module.model, build, *how)
        pretrained = job.arguments["encoder"] != "none"
        untrained, val = self._untrained(job, record) if pretrained else None, cast(EvaluationBatches, scores.batches)
        return study(trials, val, settings(optimization, batches.batch_size, pretrained), known, untrained)

    def _held_out(self, job: Job, scores: Scores) -> EvaluationBatches:
        """The training images as those to score on are seen."""
        form = BATCH, job.batches.image_size, job.batches.channels, *cast(EvaluationBatches, scores.batches).crop
        return EvaluationBatches(job.batches.index, job.batches.rows, *form)

    def _untrained(self, job: Job, record: ModelConfig) -> nn.Module:
        """The classifier with fresh weights."""
        spec, classes = ModelSpec(record.model, own_args(record.model_args)), len(record.classes)
        untrained = build_classifier(spec, classes, None, 0.0, record.size, record.channels).model
        _fit_palette(untrained, record, job.batches)
        return untrained

    def result(
        self, job: Job, record: ModelConfig, scores: Scores, started: FewLabels | None
    ) -> tuple[nn.Module, dict[str, Any]]:
        """The classifier that cross-validation finds best, and its result with those of the others."""
        model, found = super().result(job, record, scores, started)
        if started is None:
            return model, found
        tuned = Candidate("finetune", started.setting.cross_validated, _score(found))
        method, candidates = started.best(), [one.record() for one in (*started.candidates, tuned)]
        if method != "finetune":
            log.info(f"{method} on frozen features is best by cross-validation: it is the classifier of this run")
            model = started.frozen(method, len(record.classes))
            scores.score(model, job.module.augment.normalize, scores.batches)
            found = scores.result(record.classes)
        return model, found | {"chosen": method, "candidates": candidates, "tuned": started.setting._asdict()}

    def save(self, folder: Path, model: nn.Module, record: ModelConfig) -> Path:
        return save_classifier(folder, model, record)

    def draw(self, model: nn.Module, record: ModelConfig, scores: Scores, val: Index, run: RunFolder) -> dict[str, Any]:
        return {"mistakes": save_mistakes(run, val, scores.mistakes, record.classes)}


def _fit_palette(classifier: nn.Module, record: ModelConfig, batches: TrainBatches) -> None:
    """Find the palette of an untrained iGPT; no other model has one."""
    if isinstance(classifier, TimmImageGPT) and not classifier.has_palette:
        normalize = Normalize(record.mean, record.std)
        classifier.fit_palette(normalize(some_images(batches, IGPT.fit_images).images))


def _score(result: dict[str, Any]) -> Score:
    metric, value = headline(result)
    return score_fraction(value, result["samples"])._replace(metric=metric)
