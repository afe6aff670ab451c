"""Training a tokenizer: shards, and a run folder with the codebook."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mae_kit.commands.report import report
from mae_kit.data.loading.loader import EvaluationBatches, TrainBatches
from mae_kit.encoders.patches import grid_of
from mae_kit.encoders.timm_models import pair
from mae_kit.encoders.tokenizers import DVAE, save_tokenizer
from mae_kit.errors import UserError
from mae_kit.plots.callbacks import Codebook
from mae_kit.training.config import Intervals, Machine, Optimization, Relaxation
from mae_kit.training.fit import check_resumable
from mae_kit.training.modules import TokenizerModule
from mae_kit.training.ranges import AREAS, check_ranges
from mae_kit.training.run import Run
from mae_kit.training.samples import open_stream, spread_rows
from mae_kit.training.train import Job

log = logging.getLogger(__name__)

PROBE_IMAGES, PROBE_BATCH = 256, 32


@dataclass(frozen=True)
class TokenizerData:
    """Images and crops.

    Attributes:
        path: What `mae-kit shard` made; a pattern such as "DIR/train-*.tar"; a URL of shards with their index; or a
            plain folder of images, which is packed once.
        batch_size: Images per optimizer step, over all devices and micro-batches; reduced if there are fewer images.
        image_size: Side in pixels, or height and width; the trained tokenizer takes any size.
        exclude: File that lists samples to leave out: the duplicates.jsonl of `mae-kit dedup`.
        crop_scale: Smallest and largest fraction of an image's area that a crop covers.
        flip: Flip half of the images horizontally.
        mix_shards: Shuffle samples among this many shards at a time; 0 = among all.
    """

    path: str
    batch_size: int
    image_size: int | list[int] = 64
    exclude: str | None = None
    crop_scale: tuple[float, float] = (0.2, 1.0)
    flip: bool = True
    mix_shards: int = 0

    def __post_init__(self) -> None:
        check_ranges(vars(self), "data", crop_scale=AREAS)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return pair(self.image_size)


def tokenizer(
    model: DVAE,
    data: TokenizerData,
    optimization: Optimization,
    run: Path,
    relaxation: Relaxation = Relaxation(),
    intervals: Intervals = Intervals(),
    machine: Machine = Machine(),
    seed: int = 0,
    resume: bool = False,
    allow_data_change: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Train a tokenizer on images without labels; BEiT's pretraining predicts its codes.

    Args:
        model: The tokenizer.
        data: The images.
        optimization: Optimizer and learning rate schedule.
        run: Folder of the run, for everything it writes.
        relaxation: Annealing of the Gumbel-softmax and of the KL weight.
        intervals: How often to log, save and score.
        machine: Precision, micro-batches, workers.
        seed: Seed of weights, order, crops and noise.
        resume: Resume the run in that folder.
        allow_data_change: Resume even if the shards have changed; the order of the samples is then different.
        dry_run: Check everything, print the plan and stop; nothing is trained or written.

    Returns:
        Folder, steps, last loss, perplexity of the codes on images of the shards; of a dry run the plan.

    Raises:
        UserError: A setting cannot work; the error names it and a fix.
    """
    arguments = dict(locals())
    if machine.accumulate_grad_batches == "auto":
        what = "a tokenizer's noise and balance loss depend on the micro-batch"
        raise UserError("machine.accumulate_grad_batches.tokenizer", what, "give a number")
    grid_of(data.size, model.stride)
    stream = open_stream(data.path, data, optimization, machine, seed)
    batches = stream.batches(data.size, model.channels, data.crop_scale)
    module = TokenizerModule(model, **optimization.arguments(), relaxation=relaxation, flip=data.flip, seed=seed)
    job = Job(module, stream, batches, arguments)
    with Run(run, resume, stream.replica.rank) as folder:
        state = folder.left_off(stream.plan.steps) if resume else None
        if state:
            check_resumable(module, stream.plan, state, folder, allow_data_change)
        codebook = _codebook(batches, intervals, folder)
        if dry_run:
            return job.describe(folder, state)
        steps = job.train(folder, [codebook], state)
        if job.is_first:
            saved = save_tokenizer(folder.path, model)
            log.info(f"tokenizer: {saved}")
        page = report(folder.path) if job.is_first else {}
        folder.finish(steps)
        return {"run": str(run), "steps": steps, **folder.last_metrics(), **page}


def _codebook(batches: TrainBatches, intervals: Intervals, run: Run) -> Codebook:
    """Of some training images; the first rank has them all."""
    rows = spread_rows(batches, PROBE_IMAGES)
    mine = rows if batches.replica.rank == 0 else rows[:0]
    probe = EvaluationBatches(batches.index, mine, PROBE_BATCH, batches.image_size, batches.channels)
    return Codebook(probe, intervals.eval_every_n_steps, run)
