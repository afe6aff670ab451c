"""Fine-tuning: a pretrained encoder, or any timm model, becomes a classifier."""

import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mae_kit.commands.report import report
from mae_kit.data.index.exclusions import Kept, kept
from mae_kit.data.index.labels import class_frequencies, common_classes, draw_per_class, smallest_class
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.index.statistics import choose_statistics, warn_of_mismatch
from mae_kit.data.loading.loader import EvaluationBatches, Replica, TrainBatches
from mae_kit.data.resolve import resolve_pair
from mae_kit.data.transforms.augment import IMAGENET_MEAN, IMAGENET_STD
from mae_kit.durable import replace_text
from mae_kit.encoders.image_gpt_model import TimmImageGPT
from mae_kit.encoders.timm_models import pair
from mae_kit.errors import UserError
from mae_kit.objectives import IGPT
from mae_kit.tasks.classifier import Classifier, ModelSpec, build_classifier, check_batch_norm, unfreeze_color_head
from mae_kit.tasks.config import Augmentation, FinetuneData
from mae_kit.tasks.metrics import HEADLINES, ClassificationScores, MultiLabelScores, Scores
from mae_kit.tasks.module import FinetuneModule
from mae_kit.training.checkpoint import State, load_latest
from mae_kit.training.config import Intervals, Machine, Optimization, Plan, must_be_within
from mae_kit.training.fit import check_resumable, this_replica
from mae_kit.training.freezing import freeze_below
from mae_kit.training.run import Run
from mae_kit.training.samples import Stream, plan_for, some_images
from mae_kit.training.train import planned, train
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import save_classifier
from mae_kit.weights.recognize import load_encoder

log = logging.getLogger(__name__)

EVALUATION_BATCH = 128


def finetune(
    data: FinetuneData,
    optimization: Optimization,
    run: Path,
    encoder: str = "none",
    model: ModelSpec | None = None,
    augmentation: Augmentation = Augmentation(),
    drop_path: float = 0.0,
    blocks: int | None = None,
    ema: float | None = None,
    generative: float = 0.0,
    balance: float = 0.0,
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
        optimization: How the weights move; layer_decay is the factor between neighboring layers.
        run: Folder of the run; everything it makes goes there.
        encoder: A pretraining run or its encoder.safetensors; "none" = random weights.
        model: Which timm model, with --model.name NAME and --model.args "{KEY: VALUE}"; null = that of the encoder.
        augmentation: Augmentation of the training images.
        drop_path: Stochastic depth rate of the last block, 0 to 1.
        blocks: Train this many last blocks, the norm behind them and the head; 0 = the head alone. By default all.
        ema: Decay of a moving average of the weights, which is what is scored and saved; by default none.
        generative: Weight of iGPT's pretraining loss, which its fine-tuning keeps (paper: 1); with the BERT objective
            15% of the pixels are hidden. 0 = classification alone.
        balance: How far the loss compensates for rare classes, by adding the log of their frequency to the logits
            (logit adjustment, arXiv 2007.07314): 0 = not at all, 1 = as if all classes were equally frequent.
        intervals: How often to log, save and score.
        machine: Where and how it is computed: precision, micro-batches, workers.
        seed: Seed of weights, order, crops and augmentation.
        resume: Continue the run in that folder.
        allow_data_change: Resume although the shards have changed; the order of the samples is then different.
        dry_run: Check everything, print the plan and stop, without training or making a folder.

    Returns:
        Folder, and on the validation shards (0..1) top-1, top-5, macro-F1 and balanced accuracy, or mean average
        precision and macro-F1 where images have any number of classes; samples scored. Of a dry run the plan.

    Raises:
        UserError: A setting that cannot work, named with what to do.
    """
    arguments = dict(locals())
    must_be_in_bounds(drop_path, ema, generative, balance)
    stream, val, classes = open_labeled(data, optimization, machine, seed)
    replica, plan = stream.replica, stream.plan
    augmentation.check_mixing(stream.micro_batch_size)
    with Run(run, resume, replica.rank) as folder:
        state, done = _left_off(folder, plan) if resume else (None, {})
        if state and done:
            plan.check_continues(state["plan"], run, allow_data_change)
            _check_same_images(val, done, run, data.val or data.path)
            log.info(f"{run} is complete: it has trained for {state['global_step']} of {plan.steps} steps")
            _tell(done, data.val or data.path)
            return _summary(run, done)
        torch.manual_seed(seed)
        arguments["data"] = data = with_statistics(data, stream.index, encoder, model)
        classifier, config = _classifier(data, encoder, model, classes, drop_path)
        warn_of_mismatch((config.mean, config.std), stream.index, "the classifier normalizes with")
        config = replace(config, multi_label=stream.index.multi_label)
        if blocks is not None:
            freeze_below(classifier, blocks)
        if generative:
            unfreeze_color_head(classifier)
        check_batch_norm(classifier, stream.micro_batch_size)
        module = FinetuneModule(
            classifier,
            len(classes),
            **optimization.arguments(),
            mean=config.mean,
            std=config.std,
            multi_label=config.multi_label,
            augmentation=augmentation,
            ema=ema,
            generative=generative,
            shift=_shift(stream.index, stream.rows, classes, balance),
            seed=seed,
        )
        batches = stream.batches(config.size, config.channels, data.crop_scale)
        if state:
            check_resumable(module, plan, state, folder, allow_data_change)
        elif not (dry_run or encoder != "none" or (model and model.weights)):
            _fit_palette(classifier, module, batches)
        scores = _scores(val, config, intervals, replica, folder)
        if dry_run:
            return planned(module, stream, machine, folder, state)
        train(module, batches, stream, machine, intervals, folder, [scores], arguments, state)
        result = {"encoder": encoder, "val": val.fingerprint, **folder.last_metrics(), **scores.result(classes)}
        if replica.rank == 0:
            save_classifier(folder.path, module.scored(), config)
            replace_text(folder.result, json.dumps(result, indent=2))
        page = report(folder.path) if replica.rank == 0 else {}
        _tell(result, data.val or data.path)
        return _summary(run, result) | page


def must_be_in_bounds(drop_path: float, ema: float | None, generative: float, balance: float) -> None:
    """Raises UserError where one of these settings cannot work."""
    must_be_within(0, 1, {"drop_path": drop_path})
    must_be_within(0, 0.999999, {"ema": ema})  # at 1 the average would stay where it began
    must_be_within(0, math.inf, {"generative": generative, "balance": balance})


def open_labeled(
    data: FinetuneData, optimization: Optimization, machine: Machine, seed: int
) -> tuple[Stream, Index, list[str]]:
    """What is trained on, what is scored on, and the classes of both.

    Raises:
        UserError: No such images, labels or classes, or too few of them.
    """
    cache = machine.shard_cache()
    pair_of_shards = resolve_pair(data.path, data.val, machine.pack, cache)
    train, val = (open_index(shards, cache=cache) for shards in pair_of_shards)
    train.check_mix_shards(data.mix_shards)
    classes = common_classes(train, val, pair_of_shards)
    replica = this_replica(machine, data.batch_size)
    samples = kept(train, data.exclude)
    rows = _training_rows(train, samples, data, seed)
    return Stream(train, rows, plan_for(train, samples, rows, data, optimization, seed), replica), val, classes


def _tell(result: dict[str, Any], name: str) -> None:
    told = ", ".join(f"{label} {result[key]:.1%}" for key, label in HEADLINES.items() if key in result)
    log.info(f"{told} on {result['samples']} images of {name}")


def _check_same_images(val: Index, result: dict[str, Any], run: Path, name: str) -> None:
    """Refuse to tell the result of a complete run as that of other images."""
    if result["val"] != val.fingerprint:
        fix = "give those it was scored on; `mae-kit predict` and `evaluate` take others"
        raise UserError("finetune.of", f"{run} is complete, and was not scored on the images of {name}", fix)


def _left_off(run: Run, plan: Plan) -> tuple[State | None, dict[str, Any]]:
    """The checkpoint to go on from, and the result, which only a complete run has.

    A run that was killed while it was scored does its last steps again.
    """
    state = load_latest(run.checkpoints)
    if state is None or state["global_step"] < plan.steps:
        return state, {}
    path = run.result
    result = json.loads(path.read_text()) if path.is_file() else {}
    if result.get("step") == state["global_step"]:
        return state, result
    return load_latest(run.checkpoints, before=plan.steps), {}


def _scores(val: Index, config: ModelConfig, intervals: Intervals, replica: Replica, run: Run) -> Scores:
    """This process's part of them."""
    mine = val.labeled()[replica.rank :: replica.world_size]
    form = config.size, config.channels, config.crop_pct
    held_out = EvaluationBatches(val, mine, EVALUATION_BATCH, *form)
    if config.multi_label:
        return MultiLabelScores(held_out, len(config.classes), intervals.eval_every_n_steps, run)
    return ClassificationScores(held_out, len(config.classes), intervals.eval_every_n_steps, run)


def _summary(run: Path, result: dict[str, Any]) -> dict[str, Any]:
    return {"run": str(run), **{name: result[name] for name in (*HEADLINES, "samples") if name in result}}


def _fit_palette(classifier: nn.Module, module: FinetuneModule, batches: TrainBatches) -> None:
    """Find the palette of an untrained iGPT; no other model has one."""
    if isinstance(classifier, TimmImageGPT):
        classifier.fit_palette(module.augment.normalize(some_images(batches, IGPT.fit_images).images))


def _shift(index: Index, rows: np.ndarray, classes: list[str], balance: float) -> Tensor:
    """Of each class `balance` times the logit of its frequency: a model that knew no more would have that logit."""
    frequency = class_frequencies(index, rows, len(classes))
    logit = np.log(frequency / (1 - frequency)) if index.multi_label else np.log(frequency)
    return torch.from_numpy(balance * logit).float()


def with_statistics(data: FinetuneData, index: Index, encoder: str, model: ModelSpec | None) -> FinetuneData:
    """Fill in the mean and std of the images where no weights bring their own."""
    if encoder != "none" or (model and model.weights):
        return data
    mean, std = choose_statistics(data.mean, data.std, index)
    return replace(data, mean=mean, std=std)


def _classifier(
    data: FinetuneData, encoder: str, spec: ModelSpec | None, classes: list[str], drop_path: float
) -> tuple[nn.Module, ModelConfig]:
    """The model, and what is known of it."""
    with torch.random.fork_rng(devices=[]):  # else the head would start elsewhere
        loaded = None if encoder == "none" else load_encoder(Path(encoder), any_family=True)
    known = loaded.pretrained_cfg if loaded else None
    size = pair(data.image_size)
    channels = len(data.mean or (known.mean if known else IMAGENET_MEAN))
    built = build_classifier(spec, len(classes), loaded, drop_path, size, channels, classes)
    log.info(f"{built.loaded} tensors loaded; new: {', '.join(built.fresh) if built.loaded else 'all'}")
    mean, std = normalization(data, built)
    name = known.model if known else spec.name  # type: ignore[union-attr]
    trained = {k: v for k, v in known.model_args.items() if k not in ("img_size", "in_chans")} if known else {}
    args = trained | (spec.args if spec else {})
    objective, step = (known.objective, known.step) if known else ("none", 0)
    how = {"image_size": size, "crop_pct": data.crop_pct, "classes": classes}
    return built.model, ModelConfig(name, args, mean, std, objective, step, **how)


def normalization(data: FinetuneData, built: Classifier) -> tuple[list[float], list[float]]:
    """Mean and std of each channel: the recipe's, else the weights', else ImageNet's.

    Raises:
        UserError: There are not as many of the one as of the other.
    """
    mean, std = data.mean or built.mean or IMAGENET_MEAN, data.std or built.std or IMAGENET_STD
    if len(mean) != len(std):
        what = f"data.mean has {len(mean)} values and data.std {len(std)}"
        raise UserError("data.mean", what, "give both, one value per channel, as `mae-kit shard` prints them")
    return mean, std


def _training_rows(index: Index, samples: Kept, data: FinetuneData, seed: int) -> np.ndarray:
    """Rows to train on: all labeled ones that are kept, or the first `labels_per_class` a class in a keyed order.

    Raises:
        UserError: A class has fewer, or images have several, or there are fewer rows than a batch.
    """
    if data.labels_per_class and index.multi_label:
        what = f"data.labels_per_class draws by the one label of an image, those of {data.path} have any number"
        raise UserError("data.labels_per_class", what, "leave it out, or pack fewer images")
    rows = np.intersect1d(index.labeled(), samples.rows)
    if data.labels_per_class:
        labels = index.label[rows]
        short = smallest_class(labels)
        if short < data.labels_per_class:
            raise UserError(
                "data.labels_per_class",
                f"data.labels_per_class {data.labels_per_class}, but a class of {data.path} has {short} images",
                f"give --data.labels_per_class {short} or less",
            )
        rows = rows[draw_per_class(labels, data.labels_per_class, seed)]
    if len(rows) < data.batch_size:
        raise UserError(
            "finetune.training_rows",
            f"{len(rows)} labeled images of {data.path} are fewer than data.batch_size {data.batch_size}",
            f"give --data.batch_size {len(rows)} or less",
        )
    return rows
