"""Training a tokenizer: shards, and a run folder with the codebook."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mae_kit.commands.report import report
from mae_kit.data.loading.loader import EvaluationBatches, TrainBatches
from mae_kit.data.transforms.augment import PretrainAugment
from mae_kit.encoders.timm_models import pair
from mae_kit.encoders.tokenizers import DVAE, save_tokenizer
from mae_kit.errors import UserError
from mae_kit.patches import grid_of
from mae_kit.plots.callbacks import Codebook
from mae_kit.tensors import Batch
from mae_kit.training.checkpoint import load_latest
from mae_kit.training.config import Intervals, Machine, Optimization, Plan, must_be_areas, must_be_within
from mae_kit.training.fit import finish
from mae_kit.training.module import Training
from mae_kit.training.optimizer import Group, parameter_groups
from mae_kit.training.run import Run
from mae_kit.training.samples import open_stream, spread_rows

log = logging.getLogger(__name__)

PROBE_IMAGES, PROBE_BATCH = 256, 32


@dataclass(frozen=True)
class TokenizerData:
    """Which images, and what becomes of them.

    Attributes:
        path: A folder of tar shards, or a pattern such as "DIR/train-*.tar"; or a URL of these.
        batch_size: Images a step, over all devices and micro-batches.
        image_size: Pixels a side, or height and width; the tokenizer takes any size afterwards.
        exclude: A list of samples to leave out, the duplicates.jsonl of `mae-kit dedup`; none if not given.
        crop_scale: Smallest and largest share of an image's area that a crop shows.
        flip: Mirror half of the images.
        mix_shards: Mix the samples of so many shards at a time; 0 mixes all samples.
    """

    path: str
    batch_size: int
    image_size: int | list[int] = 64
    exclude: str | None = None
    crop_scale: tuple[float, float] = (0.2, 1.0)
    flip: bool = True
    mix_shards: int = 0

    def __post_init__(self) -> None:
        must_be_areas(*self.crop_scale)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return pair(self.image_size)


@dataclass(frozen=True)
class Relaxation:
    """How soft codes become hard ones, and how much their distribution is held to the uniform one; half cosines.

    Attributes:
        temperature: Of the Gumbel-softmax at the end, from 1 at the start (paper: 1/16).
        temperature_epochs: After so many epochs (paper: 150,000 of 3,000,000 steps).
        divergence_weight: Of the divergence in the loss at the end, from 0 at the start (paper: 6.6).
        divergence_epochs: After so many epochs (paper: 5,000 steps).
        imbalance_weight: In the loss, of the use of some codes more than of others, from the start; it keeps a short
            training from collapsing (paper: none).
        hard: Codes are hard from the start, and only their gradient is soft; then leave the temperature at 1
            (paper: false).
        noise: Of the draw of the codes at the end, from 1 at the start (paper: 1). Where codes are used they are the
            best ones; a training too short for these to stand out learns what they mean if noise fades.
        noise_epochs: After so many epochs.
    """

    temperature: float = 0.0625
    temperature_epochs: float = 1.0
    divergence_weight: float = 6.6
    divergence_epochs: float = 1.0
    imbalance_weight: float = 0.0
    hard: bool = False
    noise: float = 1.0
    noise_epochs: float = 1.0

    def __post_init__(self) -> None:
        for name in ("temperature", "noise"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(
                    "tokenizer.unusable",
                    f"relaxation.{name} is {getattr(self, name)}",
                    "give a number above 0, 1 at most",
                )
        rest = ("temperature_epochs", "divergence_weight", "divergence_epochs", "imbalance_weight", "noise_epochs")
        must_be_within(0, math.inf, {f"relaxation.{name}": getattr(self, name) for name in rest})

    def at(self, epoch: float) -> tuple[float, float, float]:
        """Temperature, weight of the divergence, and noise."""
        temperature = 1 + (self.temperature - 1) * _half_cosine(epoch, self.temperature_epochs)
        noise = 1 + (self.noise - 1) * _half_cosine(epoch, self.noise_epochs)
        return temperature, self.divergence_weight * _half_cosine(epoch, self.divergence_epochs), noise


def _half_cosine(epoch: float, epochs: float) -> float:
    """From 0 to 1 within so many epochs."""
    done = min(1.0, epoch / epochs) if epochs > 0 else 1.0
    return (1 - math.cos(math.pi * done)) / 2


class Tokenizing(Training):
    """A tokenizer in training.

    Args:
        tokenizer: What is trained.
        data: Says whether images are flipped.
        relaxation: The recipe's part.
        optimization: The recipe's part.
        plan: The length of the run.
        run: Its folder.
    """

    def __init__(
        self,
        tokenizer: DVAE,
        data: TokenizerData,
        relaxation: Relaxation,
        optimization: Optimization,
        plan: Plan,
        run: Run,
    ):
        super().__init__(optimization, plan, run)
        self.tokenizer, self.relaxation = tokenizer, relaxation
        self.augment = PretrainAugment([0.0] * tokenizer.channels, [1.0] * tokenizer.channels, data.flip)

    def groups(self) -> list[Group]:
        return parameter_groups(self.tokenizer, self.optimization.weight_decay)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        temperature, weight, noise = self.relaxation.at(self.plan.epoch(self.step))
        evidence = self.tokenizer(self.augment(batch.images, batch.seeds), temperature, self.relaxation.hard, noise)
        values = math.prod(self.tokenizer.stride) * self.tokenizer.channels  # that a code stands for
        loss = evidence.error + weight / values * evidence.divergence
        loss = loss + self.relaxation.imbalance_weight * evidence.imbalance
        return {"loss": loss, **evidence._asdict()}


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
) -> dict[str, Any]:
    """Train a tokenizer on shards without labels: `mae-kit pretrain` of a BEiT predicts its codes.

    Args:
        model: The tokenizer.
        data: The images.
        optimization: How the weights move.
        run: Folder of the run; everything it makes goes there.
        relaxation: How codes become hard.
        intervals: How often to log, save and draw.
        machine: Where and how it is computed: precision, micro-batches, workers.
        seed: Of weights, order, crops and noise.
        resume: Continue the run in that folder.
        allow_data_change: Resume although the shards are others than before; the order of the samples is then another.

    Returns:
        Folder, steps, last loss, perplexity of the codes on images of the shards.

    Raises:
        UserError: A setting that cannot work, named with what to do.
    """
    arguments = dict(locals())
    grid_of(data.size, model.stride)
    stream = open_stream(data.path, data, optimization, machine, seed)
    batches = stream.batches(data.size, model.channels, data.crop_scale)
    with Run(run, resume, stream.share.rank) as folder:
        module = Tokenizing(model, data, relaxation, optimization, stream.plan, folder)
        if resume and (state := load_latest(folder.checkpoints)):
            module.resume(state, allow_data_change)
        folder.start(arguments, module.start, module.bytes_to_write())
        finish(module, model, batches, stream.share, machine, intervals, [_codebook(batches, intervals)])
        if stream.share.rank == 0:
            saved = save_tokenizer(folder.path, model)
            log.info(f"tokenizer: {saved}")
            report(folder.path)
        return {"run": str(run), "steps": stream.plan.steps, **folder.last_metrics()}


def _codebook(batches: TrainBatches, intervals: Intervals) -> Codebook:
    """Of some training images; the first rank has them all."""
    rows = spread_rows(batches, PROBE_IMAGES)
    mine = rows if batches.share.rank == 0 else rows[:0]
    probe = EvaluationBatches(batches.index, mine, PROBE_BATCH, batches.image_size, batches.channels)
    return Codebook(probe, intervals.eval_every_n_steps)
