"""Pretraining: an objective, shards, and a run folder."""

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.callbacks import Callback

from mae_kit.commands.report import report
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.index.statistics import Statistics, choose_statistics, fit_channels, share_scale
from mae_kit.data.loading.loader import EvaluationBatches
from mae_kit.data.order import permute
from mae_kit.data.remote.filesystem import is_url
from mae_kit.data.resolve import resolve
from mae_kit.data.scale import Scale
from mae_kit.errors import UserError
from mae_kit.evaluation.bootstrap import MAP, TOP1
from mae_kit.evaluation.verdict import MORE, knn_verdict
from mae_kit.objectives import Objective
from mae_kit.plots.callbacks import KnnScore, Reconstructions
from mae_kit.training.accumulate import accumulated
from mae_kit.training.best import Best, Keep, best_of, told_best
from mae_kit.training.config import Intervals, Machine, Optimization
from mae_kit.training.fit import check_resumable
from mae_kit.training.metrics import KNN_IMAGES, read_metrics
from mae_kit.training.modules import PretrainModule
from mae_kit.training.pace import Pace, measure_pace
from mae_kit.training.ranges import AREAS, COLORS, NOT_NEGATIVE, POSITIVE, check_ranges
from mae_kit.training.run import Run
from mae_kit.training.samples import open_stream, some_images
from mae_kit.training.train import Job
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.initialize import start_from
from mae_kit.weights.native import save_encoder, save_model

log = logging.getLogger(__name__)

PROBE_IMAGES = 8
KNN_SAMPLES = 2000
KNN_BATCH = 128


@dataclass(frozen=True)
class PretrainData:
    """Images, crops and normalization.

    Attributes:
        path: What `mae-kit shard` made; a pattern such as "DIR/train-*.tar"; a URL of shards (s3://, gs://, https://)
            with their index; or a plain folder of images, which is packed once.
        batch_size: Images per optimizer step, over all devices and micro-batches; reduced if there are fewer images.
        exclude: File that lists samples to leave out: the duplicates.jsonl of `mae-kit dedup`.
        crop_scale: Smallest and largest fraction of an image's area that a crop covers (MAE: .2 to 1).
        flip: Flip half of the images horizontally; set it to false where left and right matter, as in text.
        color_jitter: Strength of brightness, contrast and saturation jitter, for RGB (BEiT: .4).
        mean: Mean of each channel, in 0..1; by default that of your images, which `mae-kit shard` writes to stats.json;
            without that file, of 200 images, or ImageNet's if the shards are remote.
        std: Standard deviation of each channel, in 0..1.
        knn_shards: Labeled shards for a kNN score before and during training; by default the validation split of the
            data, if it has one.
        mix_shards: Shuffle samples among this many shards at a time, grouped differently each epoch; 0 = among all. For
            remote shards larger than the cache, hard disks and network file systems.
        masks: Masks of each image in a step: it is decoded, cropped and flipped once, and the objective sees it this
            many times, each with different patches hidden. For loaders that cannot keep up with a GPU. Multiplies the
            memory and time of a step; batch_size, epochs and learning rate count images.
    """

    path: str
    batch_size: int
    exclude: str | None = None
    crop_scale: tuple[float, float] = (0.2, 1.0)
    flip: bool = True
    color_jitter: float = 0.0
    mean: list[float] | None = None
    std: list[float] | None = None
    knn_shards: str | None = None
    mix_shards: int = 0
    masks: int = 1

    def __post_init__(self) -> None:
        check_ranges(vars(self), "data", color_jitter=NOT_NEGATIVE, masks=POSITIVE)
        check_ranges(vars(self), "data", crop_scale=AREAS, mean=COLORS, std=COLORS)

    @property
    def statistics(self) -> Statistics:
        """Mean and std, once they are chosen."""
        assert self.mean and self.std
        return self.mean, self.std


def pretrain(
    objective: Objective,
    data: PretrainData,
    optimization: Optimization,
    run: Path,
    intervals: Intervals = Intervals(),
    machine: Machine = Machine(),
    seed: int = 0,
    init: Path | None = None,
    finetune: str | None = None,
    minutes: float | None = None,
    keep: Keep = "last",
    patience: int | None = None,
    resume: bool = False,
    allow_data_change: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Pretrain an encoder on images without labels.

    Args:
        objective: The objective and its encoder; `--objective.help MAE` explains the settings of one,
            `--objective.encoder.help ViT` those of an encoder.
        data: The images.
        optimization: Optimizer and learning rate schedule.
        run: Folder of the run, for everything it writes.
        intervals: How often to log, save and score.
        machine: Precision, micro-batches, workers.
        seed: Seed of weights, order, crops and masks.
        init: Weights to start from: a run, a file or folder that `mae-kit import` reads, or timm:NAME; by default
            random ones.
        finetune: The recipe that fine-tunes this encoder; the run ends by printing that command.
        minutes: Length of pretraining in minutes, in place of epochs; the speed of this machine is measured first.
        keep: best = also keep the weights with the best kNN score on labeled images, in RUN/best, which other commands
            read like RUN itself.
        patience: Stop after this many scores in a row without an improvement, and keep the best weights.
        resume: Resume the run in that folder.
        allow_data_change: Resume even if the shards have changed; the order of the samples is then different.
        dry_run: Check everything, print the plan and stop; nothing is trained or written.

    Returns:
        `run`, its folder, which holds the encoder; `steps`, and the last metrics: `loss`, `images_per_second`... Of a
        dry run the plan.

    Raises:
        UserError: A setting cannot work; the error names it and a fix.
    """
    job = prepare(dict(locals()))
    save = partial(save_results, objective=objective, data=job.arguments["data"], scale=job.stream.index.scale)
    with Run(run, resume, job.stream.replica.rank) as folder:
        best = best_of(folder, keep, patience, intervals, save)
        state = folder.left_off(job.stream.plan.steps, best=best) if resume else None
        if state:
            check_resumable(job.module, job.stream.plan, state, folder, allow_data_change)
        elif init:
            start_from(init, objective, *job.arguments["data"].statistics, scale=job.stream.index.scale)
        elif not dry_run:
            fit_to_images(objective, job)
        if minutes is not None and not resume:
            job = lasting(minutes, measure_pace(job.module, job.batches, job.stream.plan, machine), job)
        job = accumulated(job)
        callbacks = _callbacks(objective, job, folder, best)
        if dry_run:
            return job.describe(folder, state)
        steps = job.train(folder, callbacks, state, best)
        if job.is_first:
            save(folder.path, steps)
            log.info(f"encoder: {folder.encoder}")
        page = report(folder.path) if job.is_first else {}
        folder.finish(steps)
        _tell(folder.path)
        return {"run": str(run), "steps": steps, **folder.last_metrics(), **page} | told_best(best)


def prepare(arguments: dict[str, Any]) -> Job[PretrainModule]:
    """Open the images and make the module; nothing is written.

    Args:
        arguments: Of `pretrain`, by name.

    Raises:
        UserError: As of `pretrain`.
    """
    objective, data, optimization = (arguments[name] for name in ("objective", "data", "optimization"))
    encoder = objective.encoder
    stream = open_stream(data.path, data, optimization, arguments["machine"], arguments["seed"])
    optimization.peak(data.batch_size)
    data = _with_statistics(data, stream.index, encoder.channels)
    objective.set_statistics(*data.statistics)
    batches = stream.batches(encoder.image_size, encoder.channels, data.crop_scale)
    arguments = arguments | {"data": data}
    return Job(_module(arguments), stream, batches, arguments)


def _module(arguments: dict[str, Any]) -> PretrainModule:
    data = {name: getattr(arguments["data"], name) for name in ("mean", "std", "flip", "color_jitter", "masks")}
    return PretrainModule(
        arguments["objective"], **arguments["optimization"].arguments(), **data, seed=arguments["seed"]
    )


def fit_to_images(objective: Objective, job: Job[PretrainModule]) -> None:
    """Show the objective training images where it wants some, as iGPT for its palette."""
    if objective.fit_images:
        images = some_images(job.batches, objective.fit_images).images
        objective.fit(job.module.augment.normalize(images))


def lasting(minutes: float, pace: Pace, job: Job[PretrainModule]) -> Job[PretrainModule]:
    """The training that ends after some minutes at a measured pace."""
    check_ranges({"minutes": minutes}, minutes=POSITIVE)
    plan = job.stream.plan
    epochs = float(f"{pace.images_per_second * 60 * minutes / plan.samples:.4g}")
    log.info(f"{pace.images_per_second:,.0f} images/s on this machine: {minutes:g} minutes are {epochs:g} epochs")
    arguments = job.arguments | {"optimization": job.arguments["optimization"].lasting(epochs)}
    stream = job.stream._replace(plan=replace(plan, epochs=epochs))
    return replace(job, module=_module(arguments), stream=stream, arguments=arguments)


def _tell(run: Path) -> None:
    """In one line what the encoder is worth, where labeled images were at hand."""
    found = [(row[name], row) for row in read_metrics(run) for name in ("knn_top1", "knn_map") if name in row]
    if len(found) > 1:
        (before, _), *_, (after, last) = found
        told = knn_verdict(before, after, last.get(KNN_IMAGES, 0))
        log.log(logging.WARNING if MORE in told else logging.INFO, told)


def _with_statistics(data: PretrainData, index: Index, channels: int) -> PretrainData:
    """Fill in the mean and std of the images where none are given.

    Raises:
        UserError: `data.mean`: they are of another number of channels than the encoder.
    """
    mean, std = fit_channels(choose_statistics(data.mean, data.std, index), channels)
    if not len(mean) == len(std) == channels:
        raise UserError(
            "data.mean.channels",
            f"data.mean and data.std have {len(mean)} and {len(std)} values, the encoder {channels}",
            "give one value per channel, as `mae-kit shard` prints them",
        )
    return replace(data, mean=mean, std=std)


def _callbacks(objective: Objective, job: Job[PretrainModule], run: Run, best: Best | None) -> list[Callback]:
    data, intervals, machine, batches = job.arguments["data"], job.arguments["intervals"], job.machine, job.batches
    size, channels = objective.encoder.image_size, objective.encoder.channels
    every = intervals.eval_every_n_steps
    probe = some_images(batches, PROBE_IMAGES)
    callbacks: list[Callback] = [Reconstructions(probe, every, run)]
    if shards := data.knn_shards or _held_out(data, machine.pack):
        labeled = open_index(shards, cache=machine.shard_cache())
        share_scale(batches.index.scale, labeled)
        rows = labeled.labeled()
        if not len(rows) and not data.knn_shards:
            return _unscored(callbacks, best)
        if not len(rows):
            raise UserError(
                "data.knn_shards.no_labels",
                f"{data.knn_shards} has no labels",
                "give shards with .cls members, or leave knn_shards out",
            )
        rows = rows[permute(np.arange(len(rows)), len(rows), 0)][:KNN_SAMPLES]  # in whatever order the classes come
        rows = np.sort(rows)  # shard by shard, as remote ones want to be read
        mine = rows if batches.replica.rank == 0 else rows[:0]
        shown = EvaluationBatches(labeled, mine, KNN_BATCH, size, channels)
        metric = MAP if labeled.multi_label else TOP1
        callbacks.append(KnnScore(shown, labeled.class_count, every, metric, run, best))
        return callbacks
    return _unscored(callbacks, best)


def _unscored(callbacks: list[Callback], best: Best | None) -> list[Callback]:
    """Raises UserError where the best weights are asked for."""
    if best:
        what = "there are no labeled images to score the weights on"
        raise UserError("keep", what, "give --data.knn_shards, or leave out --keep and --patience")
    return callbacks


def _held_out(data: PretrainData, pack: bool) -> str | None:
    """The held-out split of the images, which may have labels; remote ones are not fetched unasked."""
    if is_url(data.path):
        return None
    try:
        return resolve(data.path, "val", pack)
    except UserError as error:
        if error.key == "data.no_val":
            return None
        raise


def save_results(run: Path, step: int, objective: Objective, data: PretrainData, scale: Scale | None = None) -> None:
    """Write what others use: the encoder under timm's names, and the whole model."""
    config = config_of(objective, data, step, scale)
    save_encoder(run, objective.encoder.model.state_dict(), config)
    save_model(run, objective, config)


def config_of(objective: Objective, data: PretrainData, step: int, scale: Scale | None = None) -> ModelConfig:
    """What the file of the encoder says of it."""
    encoder, (mean, std) = objective.encoder, data.statistics
    name, size = type(objective).__name__, encoder.image_size
    return ModelConfig(encoder.name, encoder.model_args, mean, std, name, step, image_size=size, scale=scale)
