"""Fine-tuning: a pretrained encoder, or any timm model, becomes a classifier."""

import inspect
import json
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import nn

from mae_kit.commands.report import report
from mae_kit.console import console
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.index.statistics import choose_statistics, packed_scale, warn_of_mismatch
from mae_kit.data.loading.loader import EvaluationBatches, Replica, TrainBatches
from mae_kit.data.resolve import resolve_pair
from mae_kit.data.transforms.augment import Normalize
from mae_kit.encoders import Encoder
from mae_kit.encoders.image_gpt_model import TimmImageGPT
from mae_kit.errors import UserError
from mae_kit.evaluation.bootstrap import headline, score_fraction
from mae_kit.evaluation.verdict import verdict
from mae_kit.files.durable import replace_text
from mae_kit.files.run_folder import RunFolder
from mae_kit.files.run_records import read_record
from mae_kit.objectives import IGPT
from mae_kit.reports.tables import candidates_table
from mae_kit.tasks.classifier import ModelSpec, build_classifier, check_batch_norm, unfreeze_color_head
from mae_kit.tasks.config import Augmentation, FinetuneData
from mae_kit.tasks.few_labels import FEW, LEAST, Candidate, takes_a_head
from mae_kit.tasks.labeled import Labeled, build_with_record, open_labeled
from mae_kit.tasks.load import load_trained
from mae_kit.tasks.metrics import HEADLINES, ClassificationScores, MultiLabelScores, Scores
from mae_kit.tasks.mistakes import save_mistakes
from mae_kit.tasks.module import FinetuneModule, log_decay
from mae_kit.tasks.task import Task
from mae_kit.tasks.tuning import FewLabels, Setting, Trials, settings, study
from mae_kit.training.accumulate import accumulated
from mae_kit.training.best import Best, Keep, best_of, is_over, told_best
from mae_kit.training.checkpoint import State
from mae_kit.training.config import Intervals, Machine, Optimization, Plan
from mae_kit.training.fit import check_resumable
from mae_kit.training.freezing import freeze_below
from mae_kit.training.ranges import BELOW_ONE, FRACTION, NOT_NEGATIVE, check_ranges
from mae_kit.training.run import Run
from mae_kit.training.samples import Stream, some_images
from mae_kit.training.train import Job
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import save_classifier
from mae_kit.weights.pretrained import AnyTimm
from mae_kit.weights.recognize import load_encoder

log = logging.getLogger(__name__)

EVALUATION_BATCH = 128


def finetune(
    data: FinetuneData,
    optimization: Optimization,
    run: Path,
    encoder: str = "none",
    model: ModelSpec | None = None,
    task: Task | None = None,
    augmentation: Augmentation = Augmentation(),
    drop_path: float = 0.0,
    blocks: int | None = None,
    ema: float | None = None,
    generative: float = 0.0,
    tune: Literal["auto", "none"] = "none",
    against_scratch: bool = False,
    keep: Keep = "last",
    patience: int | None = None,
    intervals: Intervals = Intervals(),
    machine: Machine = Machine(),
    seed: int = 0,
    resume: bool = False,
    allow_data_change: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Train a classifier on labeled images, from a pretrained encoder or from scratch.

    The loss is cross-entropy where each image has one label, and binary cross-entropy where it has any number of them
    (`mae-kit shard --labels TABLE.csv`).

    Args:
        data: The images and labels.
        optimization: Optimizer and learning rate schedule.
        run: Folder of the run, for everything it writes.
        encoder: A pretraining run or its encoder.safetensors; "none" = random weights.
        model: Which timm model, with --model.name NAME and --model.args "{KEY: VALUE}"; null = that of the encoder.
        task: What to train for: by default classification; `mae_kit.tasks.segmentation.Segmentation` classifies every
            pixel, `mae_kit.tasks.regression.Regression` predicts numbers.
        augmentation: Augmentation of the training images.
        drop_path: Stochastic depth rate of the last block, 0 to 1.
        blocks: Train only the last N blocks, the final norm and the head; 0 = the head alone. By default everything.
        ema: Decay of an exponential moving average (EMA) of the weights, which is then scored and saved; by default
            none.
        generative: Weight of iGPT's pretraining loss next to the classification loss (paper: 1); with the BERT
            objective, 15% of the pixels are hidden. 0 = classification alone.
        tune: auto = with up to 2,000 labeled images, cross-validate the recipe on them, in trainings of full length,
            and with an encoder also a gentler variant, which starts from a ridge regression on the frozen features. The
            variant, or a frozen encoder with ridge regression or a linear probe, is chosen where it scores clearly
            higher. Takes up to four times as long from scratch, seven times with an encoder.
        against_scratch: Also train the same model from scratch, in RUN/scratch, and report the gain.
        keep: best = also keep the weights with the best score on the validation shards, in RUN/best, a folder for other
            commands like RUN itself; that score is optimistic.
        patience: End the training after this many scores in a row without an improvement; keeps the best weights.
        intervals: How often to log, save and score.
        machine: Precision, micro-batches, workers.
        seed: Seed of weights, order, crops and augmentation.
        resume: Resume the run in that folder.
        allow_data_change: Resume even if the shards have changed; the order of the samples is then different.
        dry_run: Check everything, print the plan and stop; nothing is trained or written.

    Returns:
        Folder, and on the validation shards (0..1) top-1, top-5, macro-F1 and balanced accuracy, or mean average
        precision and macro-F1 where images have any number of classes; samples scored. Of a dry run the plan.

    Raises:
        UserError: A setting cannot work; the error names it and a fix.
    """
    arguments: dict[str, Any] = dict(locals())
    if against_scratch and not dry_run:
        return _against_scratch(arguments)
    if task is not None:
        return _train(task, arguments)
    labeled = open_labeled(data, optimization, machine, seed)
    stream, place = labeled.stream, data.val or data.path
    with Run(run, resume, stream.replica.rank) as folder:
        best = best_of(folder, keep, patience, intervals)
        state, done = _left_off(folder, stream.plan, best) if resume else (None, {})
        if state and done:
            return _complete(run, done, labeled, state, allow_data_change, place)
        job, config = prepare(arguments, labeled)
        if not (dry_run or encoder != "none" or (model and model.weights)):
            _fit_palette(job.module.model, config, job.batches)
        scores = _scores(labeled.val, config, intervals, stream.replica, folder, best)
        few = _study(job, config, scores, folder, state) if _can_tune(job.module.model, stream, arguments) else None
        tuned = few.setting.on(labeled.optimization) if few else labeled.optimization
        job = replace(job, module=_module(arguments, config, job.module.model, tuned))
        if state:
            check_resumable(job.module, stream.plan, state, folder, allow_data_change)
        job = accumulated(job)
        if dry_run:
            return job.describe(folder, state)
        log_decay(ema, stream.plan.steps)
        if best:
            best.write = lambda place, step: save_classifier(place, job.module.scored(), config)
        steps = job.train(folder, [scores], state, best)
        about = {"encoder": encoder, "val": labeled.val.fingerprint, "labeled_images": len(stream.rows)}
        about |= told_best(best) | folder.last_metrics()
        result = _save(few, job.module, scores, config, about, labeled.val, folder)
        page = report(folder.path) if job.is_first else {}
        folder.finish(steps)
        return _told(run, result, place) | page


def prepare(
    arguments: dict[str, Any], labeled: Labeled, encoder: Encoder | AnyTimm | None = None
) -> tuple[Job[FinetuneModule], ModelConfig]:
    """Make the classifier and what trains it; nothing is written.

    Args:
        arguments: Of `finetune`, by name.
        labeled: Its images.
        encoder: In place of the one that the arguments name, which may not exist yet.

    Returns:
        The training, and what the classifier's file will say of it.

    Raises:
        UserError: As of `finetune`.
    """
    a, stream = arguments, labeled.stream
    check_ranges(a, drop_path=FRACTION, ema=BELOW_ONE, generative=NOT_NEGATIVE)
    a["augmentation"].check_mixing(stream.micro_batch_size)
    encoder = encoder or _loaded(a["encoder"])
    data = _with_statistics(a["data"], stream.index, encoder, a["model"])
    torch.manual_seed(a["seed"])
    classifier, config = build_with_record(data, encoder, a["model"], labeled.classes, a["drop_path"])
    how = {"crop_pct": data.crop_pct, "multi_label": stream.index.multi_label}
    config = replace(config, **how, scale=packed_scale(stream.index))
    warn_of_mismatch((config.mean, config.std), stream.index, "the classifier normalizes with")
    if a["blocks"] is not None:
        freeze_below(classifier, a["blocks"])
    if a["generative"]:
        unfreeze_color_head(classifier)
    check_batch_norm(classifier, stream.micro_batch_size)
    batches = stream.batches(config.size, config.channels, data.crop_scale)
    module = _module(a, config, classifier, labeled.optimization)
    return Job(module, stream, batches, a | {"data": data}), config


def _module(
    arguments: dict[str, Any], config: ModelConfig, classifier: nn.Module, optimization: Optimization
) -> FinetuneModule:
    own = {name: arguments[name] for name in ("augmentation", "ema", "generative", "seed")}
    form = {"mean": config.mean, "std": config.std, "multi_label": config.multi_label}
    return FinetuneModule(classifier, len(config.classes), **optimization.arguments(), **form, **own)


def _save(
    few: FewLabels | None,
    module: FinetuneModule,
    scores: Scores,
    config: ModelConfig,
    about: dict[str, Any],
    val: Index,
    folder: Run,
) -> dict[str, Any]:
    """Write the classifier, its result and its mistakes; return the result."""
    found = about | scores.result(config.classes)
    chosen, result = _chosen(few, module, scores, config, found) if few else (module.scored(), found)
    if not folder.rank:
        save_classifier(folder.path, chosen, config)
        result["mistakes"] = save_mistakes(folder, val, scores.mistakes, config.classes)
        replace_text(folder.result, json.dumps(result, indent=2))
    return result


def _train(task: Task, arguments: dict[str, Any]) -> dict[str, Any]:
    """Train what a task makes of an encoder, score it, save it, and draw some of its predictions."""
    a = SimpleNamespace(**arguments)
    _check_of_classification(arguments)
    labeled = task.open(a.data, a.optimization, a.machine, a.seed)
    stream, val, classes, optimization = labeled
    name = a.data.val or a.data.path
    with Run(a.run, a.resume, stream.replica.rank) as folder:
        state, done = _left_off(folder, stream.plan, best=None) if a.resume else (None, {})
        if state and done:
            return _complete(a.run, done, labeled, state, a.allow_data_change, name)
        torch.manual_seed(a.seed)
        encoder = _loaded(a.encoder)
        data = _with_statistics(a.data, stream.index, encoder, a.model)
        model: Any  # with what the task gives it: a backbone
        model, record = task.model(data, encoder, a.model, classes, a.drop_path)
        if a.blocks is not None:
            freeze_below(model.backbone, a.blocks)
        check_batch_norm(model, stream.micro_batch_size)
        record = task.learn(model, record, stream)
        module: Any = task.module(model, record, a.augmentation, optimization, a.seed)
        job = Job(module, stream, task.batches(stream, data, record), arguments | {"data": data})
        scores = task.scores(val, record, a.intervals.eval_every_n_steps, stream.replica, folder)
        if state:
            check_resumable(module, stream.plan, state, folder, a.allow_data_change)
        if a.dry_run:
            return job.describe(folder, state)
        steps = job.train(folder, [scores], state)
        about = {"encoder": a.encoder, "val": val.fingerprint, "labeled_images": len(stream.rows)}
        result = {**about, **folder.last_metrics(), **scores.result(classes)}
        page = {}
        if job.is_first:
            task.save(folder.path, module.scored(), record)
            task.draw(module.scored().eval(), record, val, folder.predictions)
            replace_text(folder.result, json.dumps(result, indent=2))
            page = report(folder.path)
        folder.finish(steps)
        return _told(a.run, result, name) | page


def _check_of_classification(given: dict[str, Any]) -> None:
    """Raises UserError where a setting is given that other tasks have no use for."""
    defaults = inspect.signature(finetune).parameters
    for name in ("ema", "generative", "tune", "keep", "patience"):
        if given[name] != defaults[name].default:
            raise UserError(name, f"{name} is for classification", "leave it out")
    if given["machine"].accumulate_grad_batches == "auto":
        what = "the micro-batches of this task are not chosen by memory"
        raise UserError("machine.accumulate_grad_batches.task", what, "give a number")


def _loaded(encoder: str) -> Any:
    """The encoder, if one is named; that draws nothing, else a head would start elsewhere."""
    with torch.random.fork_rng(devices=[]):
        return None if encoder == "none" else load_encoder(Path(encoder), any_family=True)


def _against_scratch(arguments: dict[str, Any]) -> dict[str, Any]:
    """Train from the encoder and from scratch, in the same way, and compare them on the same images."""
    run, data = arguments["run"], arguments["data"]
    if arguments["encoder"] == "none":
        raise UserError("against_scratch", "there is no encoder to compare with", "add --encoder RUN")
    once: dict[str, Any] = arguments | {"against_scratch": False}
    result = finetune(**once)
    ours = load_trained(run)
    folder = RunFolder(RunFolder(run).scratch)
    once |= {"encoder": "none", "model": ModelSpec(ours.config.model, _own_args(ours.config))}
    once |= {"run": folder.path, "resume": folder.config.is_file()}
    once |= {"optimization": replace(arguments["optimization"], layer_decay=1.0, layer_blocks=1)}
    log.info("the same training from scratch, to compare:")
    finetune(**once)
    machine = arguments["machine"]
    val = resolve_pair(data.path, data.val, machine.pack, machine.shard_cache())[1]
    found, scratch = (one.held_out(open_index(val), val) for one in (ours, load_trained(folder.path)))
    gain = found.gain(scratch)._asdict()
    labels = f"{data.labels_per_class} labels per class" if data.labels_per_class else "all labels"
    sentence = verdict(gain, labels, f"{found.samples:,} validation images, one fine-tuning each")
    console.print(sentence)
    told = {"gain": gain, "verdict": sentence}
    whole = read_record(RunFolder(run).result) | told
    replace_text(RunFolder(run).result, json.dumps(whole, indent=2))
    return result | told | report(run)


def _own_args(config: ModelConfig) -> dict[str, Any]:
    """Those that a recipe would name; size and channels are the images'."""
    return {name: value for name, value in config.model_args.items() if name not in ("img_size", "in_chans")}


def _told(run: Path, result: dict[str, Any], name: str) -> dict[str, Any]:
    """Log the scores, and return those that the command returns."""
    told = ", ".join(f"{label} {result[key]:.1%}" for key, label in HEADLINES.items() if key in result)
    told += f", mean absolute error {result['mae']:.4g}" if "mae" in result else ""
    log.info(f"{told} on {result['samples']} validation images of {name}")
    names = (*HEADLINES, "mae", "samples", "best")
    return {"run": str(run), **{name: result[name] for name in names if name in result}}


def _complete(
    run: Path, done: dict[str, Any], labeled: Labeled, state: State, allow_data_change: bool, name: str
) -> dict[str, Any]:
    """The result of a run that has nothing left to do."""
    plan = labeled.stream.plan
    plan.check_continues(state["plan"], run, allow_data_change)
    _check_same_images(labeled.val, done, run, name)
    log.info(f"{run} is complete: it has trained for {state['global_step']} of {plan.steps} steps")
    return _told(run, done, name)


def _check_same_images(val: Index, result: dict[str, Any], run: Path, name: str) -> None:
    """Refuse to report the result of a complete run as that of other images."""
    if result.get("val") != val.fingerprint:
        fix = "give those it was scored on; `mae-kit predict` and `evaluate` take others"
        raise UserError("finetune.of", f"{run} is complete, and was not scored on the images of {name}", fix)


def _left_off(run: Run, plan: Plan, best: Best | None) -> tuple[State | None, dict[str, Any]]:
    """The checkpoint to go on from, and the result, which only a complete run has."""
    state = run.left_off(plan.steps, run.result, best=best)
    step = state["global_step"] if state else 0
    done = is_over(step, plan.steps, best) and run.is_complete(step, run.result)
    return state, read_record(run.result) if done else {}


def _scores(
    val: Index, config: ModelConfig, intervals: Intervals, replica: Replica, run: Run, best: Best | None
) -> Scores:
    """This process's part of them."""
    mine = val.labeled()[replica.rank :: replica.world_size]
    form = config.size, config.channels, config.crop_pct
    held_out = EvaluationBatches(val, mine, EVALUATION_BATCH, *form)
    if config.multi_label:
        return MultiLabelScores(held_out, len(config.classes), intervals.eval_every_n_steps, run, best)
    return ClassificationScores(held_out, len(config.classes), intervals.eval_every_n_steps, run, best)


def _fit_palette(classifier: nn.Module, config: ModelConfig, batches: TrainBatches) -> None:
    """Find the palette of an untrained iGPT; no other model has one."""
    if isinstance(classifier, TimmImageGPT):
        normalize = Normalize(config.mean, config.std)
        classifier.fit_palette(normalize(some_images(batches, IGPT.fit_images).images))


def _with_statistics(
    data: FinetuneData, index: Index, encoder: Encoder | AnyTimm | None, model: ModelSpec | None
) -> FinetuneData:
    """Fill in the mean and std of the images where no weights bring their own."""
    if encoder is not None or (model and model.weights):
        return data
    mean, std = choose_statistics(data.mean, data.std, index)
    return replace(data, mean=mean, std=std)


def _can_tune(classifier: nn.Module, stream: Stream, arguments: dict[str, Any]) -> bool:
    """Whether `--tune auto` is asked for and has something to do; logs the reason where it has not."""
    if arguments["tune"] != "auto" or arguments["dry_run"]:
        return False
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


def _study(
    job: Job[FinetuneModule], config: ModelConfig, scores: Scores, folder: Run, state: State | None
) -> FewLabels:
    """Score frozen features and choose the setting; a resumed run keeps its own."""
    folder.check_writable()
    known = Setting(**read_record(folder.tuning)) if state else None
    val: Any = scores.batches
    batches, optimization = job.batches, job.module.optimization
    form = EVALUATION_BATCH, batches.image_size, batches.channels, *val.crop
    held_out = EvaluationBatches(batches.index, batches.rows, *form)
    length, build = (optimization, job.stream.plan.steps), partial(_module, job.arguments, config)
    trials = Trials(job.module.model, build, *length, batches, held_out, len(config.classes), job.machine)
    pretrained = job.arguments["encoder"] != "none"
    untrained = None
    if pretrained:
        spec = ModelSpec(config.model, _own_args(config))
        untrained = build_classifier(spec, trials.classes, None, 0.0, config.size, config.channels).model
        _fit_palette(untrained, config, batches)
    few = study(trials, val, settings(optimization, batches.batch_size, pretrained), known, untrained)
    folder.path.mkdir(parents=True, exist_ok=True)
    replace_text(folder.tuning, json.dumps(few.setting._asdict()))
    return few


def _chosen(
    few: FewLabels, module: FinetuneModule, scores: Scores, config: ModelConfig, result: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """The classifier that cross-validation finds best, and its result with those of the others."""
    metric, value = headline(result)
    tuned = Candidate("finetune", few.setting.cross_validated, score_fraction(value, result["samples"]))
    candidates = [*few.candidates, tuned._replace(score=tuned.score._replace(metric=metric))]
    records = [one.record() for one in candidates]
    console.print(candidates_table(records))
    method = few.best()
    result |= {"chosen": method, "candidates": records, "tuned": few.setting._asdict()}
    if method == "finetune":
        return module.scored(), result
    log.info(f"{method} on frozen features is best by cross-validation: it is the classifier of this run")
    model = few.frozen(method, len(config.classes))
    scores.score(model, module.augment.normalize, scores.batches)
    return model, result | scores.result(config.classes)
