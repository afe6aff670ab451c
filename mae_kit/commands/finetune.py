"""Fine-tuning: a pretrained encoder, or any timm model, learns a task from labels."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from mae_kit.commands.report import report
from mae_kit.console import console
from mae_kit.data.index.labels import describe_labels
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.index.statistics import choose_statistics, share_scale
from mae_kit.data.resolve import resolve_pair
from mae_kit.encoders import Encoder
from mae_kit.errors import UserError
from mae_kit.evaluation.verdict import verdict
from mae_kit.files.durable import replace_text
from mae_kit.files.run_folder import RunFolder
from mae_kit.files.run_records import read_record
from mae_kit.reports.tables import candidates_table
from mae_kit.tasks.classification import Classification
from mae_kit.tasks.classifier import ModelSpec, check_batch_norm
from mae_kit.tasks.config import Augmentation, FinetuneData
from mae_kit.tasks.labeled import Labeled, own_args
from mae_kit.tasks.load import load_trained
from mae_kit.tasks.metrics import HEADLINES
from mae_kit.tasks.supervised import log_decay
from mae_kit.tasks.task import Task
from mae_kit.training.accumulate import accumulated
from mae_kit.training.best import Best, Keep, best_of, is_over, told_best
from mae_kit.training.checkpoint import State
from mae_kit.training.config import Intervals, Machine, Optimization, Plan
from mae_kit.training.fit import check_resumable
from mae_kit.training.freezing import freeze_below
from mae_kit.training.ranges import BELOW_ONE, FRACTION, check_ranges
from mae_kit.training.run import Run
from mae_kit.training.train import Job
from mae_kit.weights.pretrained import AnyTimm
from mae_kit.weights.recognize import load_encoder

log = logging.getLogger(__name__)


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
    """Train a classifier, segmenter, detector or regressor on labeled images, from an encoder or from scratch.

    The loss of a classifier is cross-entropy if each image has one label, and binary cross-entropy if it has any number
    of them (`mae-kit shard --labels TABLE.csv`).

    Args:
        data: The images and labels.
        optimization: Optimizer and learning rate schedule.
        run: Folder of the run, for everything it writes.
        encoder: A run, any encoder file or folder that `mae-kit import` reads, or timm:NAME; "none" = random weights.
        model: Which timm model, with --model.name NAME and --model.args "{KEY: VALUE}"; null = that of the encoder.
        task: What to train for: by default classification; `mae_kit.tasks.segmentation.Segmentation` classifies every
            pixel, `mae_kit.tasks.regression.Regression` predicts numbers, `mae_kit.tasks.detection.Detection` finds
            objects.
        augmentation: Augmentation of the training images.
        drop_path: Stochastic depth rate of the last block, 0 to 1.
        blocks: Train only the last N blocks, the final norm and the head; 0 = the head alone. By default everything.
        ema: Decay of an exponential moving average (EMA) of the weights, which is scored and saved in their place; by
            default none.
        generative: Weight of iGPT's pretraining loss next to the classification loss (paper: 1); with the BERT
            objective, 15% of the pixels are hidden. 0 = classification loss alone.
        tune: auto = with up to 2,000 labeled images, cross-validate the recipe on them, in runs of full length, and
            with an encoder also a gentler variant, which starts from a ridge regression on the frozen features. The
            variant, or a frozen encoder with ridge regression or a linear probe, is chosen if it scores clearly higher.
            Takes up to four times as long from scratch, seven times with an encoder.
        against_scratch: Also train the same model from scratch, in RUN/scratch, and report the gain.
        keep: best = also keep the weights with the best score on the validation shards, in RUN/best, which other
            commands read like RUN itself; that score is optimistic.
        patience: Stop after this many scores in a row without an improvement, and keep the best weights.
        intervals: How often to log, save and score.
        machine: Precision, micro-batches, workers.
        seed: Seed of weights, order, crops and augmentation.
        resume: Resume the run in that folder.
        allow_data_change: Resume even if the shards have changed; the order of the samples is then different.
        dry_run: Check everything, print the plan and stop; nothing is trained or written.

    Returns:
        Folder, and on the validation shards (0..1) top-1, top-5, macro-F1 and balanced accuracy, or mean average
        precision and macro-F1 where images have any number of classes; samples scored. For a dry run, the plan.

    Raises:
        UserError: A setting cannot work; the error names it and a fix.
    """
    arguments: dict[str, Any] = dict(locals())
    if against_scratch and not dry_run:
        return _against_scratch(arguments)
    task = task_of(arguments)
    labeled = task.open(data, optimization, machine, seed)
    stream, place = labeled.stream, data.val or data.path
    with Run(run, resume, stream.replica.rank) as folder:
        best = best_of(folder, keep, patience, intervals)
        state, done = _left_off(folder, stream.plan, best) if resume else (None, {})
        if state and done:
            return _complete(run, done, labeled, state, allow_data_change, place)
        job, record = prepare(arguments, labeled)
        scores = task.scores(labeled.val, record, intervals.eval_every_n_steps, stream.replica, folder)
        job, started = (job, None) if dry_run else task.start(job, record, scores, folder, state)
        if state:
            check_resumable(job.module, stream.plan, state, folder, allow_data_change)
        job = accumulated(job)
        if dry_run:
            task.tell(job)
            return job.describe(folder, state)
        if best:
            scores.best, best.write = best, lambda place, step: task.save(place, job.module.scored(), record)
        steps = job.train(folder, [scores], state, best)
        about = {"encoder": encoder, "val": labeled.val.fingerprint, "labeled_images": len(stream.rows)}
        trained, found = task.result(job, record, scores, started)
        result = about | told_best(best) | folder.last_metrics() | found
        if job.is_first:
            task.save(folder.path, trained, record)
            result |= task.draw(trained.eval(), record, scores, labeled.val, folder)
            replace_text(folder.result, json.dumps(result, indent=2))
        if "candidates" in result:
            console.print(candidates_table(result["candidates"]))
        page = report(folder.path) if job.is_first else {}
        folder.finish(steps)
        return _told(run, result, place) | page


def task_of(arguments: dict[str, Any]) -> Task:
    """The task of a fine-tuning: by default classification, which alone has `generative` and `tune`.

    Raises:
        UserError: One of these is given to another task.
    """
    if (task := arguments["task"]) is None:
        return Classification(arguments["generative"], arguments["tune"])
    for name in ("generative", "tune"):
        if arguments[name] not in (0, "none"):
            raise UserError(name, f"{name} is for classification", "leave it out")
    return task


def prepare(arguments: dict[str, Any], labeled: Labeled, encoder: Encoder | AnyTimm | None = None) -> tuple[Job, Any]:
    """Make what the task trains, and what trains it; nothing is written.

    Args:
        arguments: Of `finetune`, by name.
        labeled: Its images.
        encoder: In place of the one that the arguments name, which may not exist yet.

    Returns:
        The training, and the record of the model.

    Raises:
        UserError: As of `finetune`.
    """
    a, stream, task = arguments, labeled.stream, task_of(arguments)
    check_ranges(a, drop_path=FRACTION, ema=BELOW_ONE)
    log_decay(a["ema"], stream.plan.steps)
    a["augmentation"].check_mixing(stream.micro_batch_size)
    encoder = encoder or _loaded(a["encoder"])
    known = getattr(encoder, "pretrained_cfg", None)
    share_scale(known and known.scale, stream.index, labeled.val, bands=known.bands if known else ())
    data = _with_statistics(a["data"], stream.index, encoder, a["model"])
    torch.manual_seed(a["seed"])
    model, record = task.model(data, encoder, a["model"], labeled.classes, a["drop_path"])
    record = task.learn(model, record, stream)
    if a["blocks"] is not None:
        freeze_below(task.backbone(model), a["blocks"])
    check_batch_norm(model, stream.micro_batch_size)
    module = task.module(model, record, a["augmentation"], labeled.optimization, a["ema"], a["seed"])
    return Job(module, stream, task.batches(stream, data, record), a | {"data": data}), record


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
    once |= {"encoder": "none", "model": ModelSpec(ours.config.model, own_args(ours.config.model_args))}
    once |= {"run": folder.path, "resume": folder.config.is_file()}
    once |= {"optimization": replace(arguments["optimization"], layer_decay=1.0, layer_blocks=1)}
    log.info("training the same model from scratch, for comparison:")
    finetune(**once)
    machine = arguments["machine"]
    val = resolve_pair(data.path, data.val, machine.pack, machine.shard_cache())[1]
    found, scratch = (one.held_out(open_index(val), val) for one in (ours, load_trained(folder.path)))
    gain = found.gain(scratch)._asdict()
    labels = describe_labels(data.labels_per_class, data.labels_fraction)
    sentence = verdict(gain, labels, f"{found.samples:,} validation images, one fine-tuning run each")
    console.print(sentence)
    told = {"gain": gain, "verdict": sentence}
    whole = read_record(RunFolder(run).result) | told
    replace_text(RunFolder(run).result, json.dumps(whole, indent=2))
    return result | told | report(run)


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


def _with_statistics(
    data: FinetuneData, index: Index, encoder: Encoder | AnyTimm | None, model: ModelSpec | None
) -> FinetuneData:
    """Fill in the mean and std of the images where no weights bring their own."""
    if encoder is not None or (model and model.weights):
        return data
    mean, std = choose_statistics(data.mean, data.std, index)
    return replace(data, mean=mean, std=std)
