"""What a recipe says about training: what changes results (optimization) apart from what must not (machine)."""

import logging
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from mae_kit.data.remote.cache import GIGABYTE, Cache
from mae_kit.errors import UserError
from mae_kit.parallel.processes import cores
from mae_kit.training.precision import Precision
from mae_kit.training.ranges import BELOW_ONE, NOT_NEGATIVE, POSITIVE, POSITIVE_FRACTION, Range, check_ranges
from mae_kit.training.schedule import Decay, absolute_learning_rate, learning_rate

log = logging.getLogger(__name__)

PROCESSES = 1024  # threads, or loader processes: more than a machine has cores


@dataclass(frozen=True)
class Optimization:
    """Optimizer and learning rate schedule.

    Attributes:
        epochs: Passes over the training images; fractions are allowed.
        min_steps: Minimum number of steps in fine-tuning: if the epochs of a small dataset give fewer, epochs and
            warm-up are lengthened.
        warmup_epochs: Epochs of linear warm-up from 0.
        base_learning_rate: Peak learning rate for a batch of 256, scaled by batch_size / 256.
        learning_rate: Absolute peak learning rate, in place of base_learning_rate.
        min_learning_rate: Learning rate at the end of the cosine or trapezoid.
        decay: cosine = half a cosine from the end of the warm-up to the end of the run; cosine_from_start = half a
            cosine over the whole run, with the warm-up in place of its beginning (SimMIM); trapezoid = constant, then
            linear over the last fifth of the run; steps = constant, but divided by 10 at each epoch listed in `steps`.
        steps: With decay = steps, the epochs, ascending, at which the learning rate is divided by 10; if there are
            none, it stays constant.
        weight_decay: Weight decay of all parameters except biases, other one-dimensional ones, and those that timm or
            the objective exempts, such as a ViT's position embeddings in fine-tuning.
        betas: Betas of AdamW: (.9, .95) in MAE's pretraining, (.9, .999) in its fine-tuning.
        clip: Norm to which gradients are clipped; by default they are not.
        optimizer: adamw, or sgd with momentum .9 (for ResNets).
        layer_decay: Layer-wise learning rate decay in fine-tuning: the factor from each layer to the one below; 1 =
            none.
        layer_blocks: Consecutive blocks of a stage that count as one layer in layer_decay (ConvNeXt V2-B: 3).
    """

    epochs: float
    min_steps: int = 0
    warmup_epochs: float = 0.0
    base_learning_rate: float | None = None
    learning_rate: float | None = None
    min_learning_rate: float = 0.0
    decay: Decay = "cosine"
    steps: tuple[float, ...] = ()
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    layer_decay: float = 1.0
    layer_blocks: int = 1

    def __post_init__(self) -> None:
        positive = dict.fromkeys(("epochs", "layer_blocks", "clip", "base_learning_rate", "learning_rate"), POSITIVE)
        others = dict.fromkeys(("min_steps", "warmup_epochs", "min_learning_rate", "weight_decay"), NOT_NEGATIVE)
        ranges = positive | others | {"layer_decay": POSITIVE_FRACTION, "betas": BELOW_ONE}
        check_ranges(vars(self), "optimization", **ranges)
        if self.warmup_epochs > self.epochs:
            what = f"optimization.warmup_epochs {self.warmup_epochs:g} are more than epochs {self.epochs:g}"
            raise UserError(
                "optimization.warmup_epochs", what, f"give --optimization.warmup_epochs {self.epochs / 20:g} or so"
            )
        if None not in (self.base_learning_rate, self.learning_rate):
            fix = "add --optimization.base_learning_rate null, or --optimization.learning_rate null"
            what = "optimization needs one of base_learning_rate and learning_rate, and has both"
            raise UserError("optimization.learning_rate.both", what, fix)
        self._check_steps()

    def _check_steps(self) -> None:
        if self.decay != "steps":
            if self.steps:
                raise UserError(
                    "optimization.decay",
                    f"optimization.decay {self.decay} takes no steps",
                    "give --optimization.steps []",
                )
            return
        if self.min_learning_rate:
            what = "optimization.min_learning_rate is for a cosine, but optimization.decay is steps"
            raise UserError("optimization.steps", what, "give --optimization.min_learning_rate 0")
        marks = [self.warmup_epochs, *self.steps, self.epochs]
        if marks != sorted(marks):
            shown = ", ".join(f"{step:g}" for step in self.steps)
            what = f"optimization.steps [{shown}] do not ascend from warmup_epochs {self.warmup_epochs:g} to "
            raise UserError(
                "optimization.steps.end",
                f"{what}epochs {self.epochs:g}",
                f"give --optimization.steps [{self.epochs * 0.875:g}]",
            )

    @classmethod
    def of(cls, lr: float | None, base_lr: float | None, **fields: Any) -> "Optimization":
        """Build from the names that modules take; without `epochs` the rate stays constant after the warm-up."""
        constant = {"epochs": max(1.0, fields.get("warmup_epochs", 0.0)), "decay": "steps"}
        fields = fields if "epochs" in fields else constant | fields
        return cls(learning_rate=lr, base_learning_rate=base_lr, **fields)

    def arguments(self) -> dict[str, Any]:
        """The arguments of a module that `of` turns into these fields."""
        fields = dict(vars(self))
        return {"lr": fields.pop("learning_rate"), "base_lr": fields.pop("base_learning_rate")} | fields

    def of_min_steps(self, images: int, batch_size: int) -> "Optimization":
        """The same schedule, stretched to `min_steps` where its epochs of so few images have fewer."""
        steps = self.epochs * images / batch_size
        if steps >= self.min_steps:
            return self
        longer = self.lasting(self.epochs * self.min_steps / steps)
        log.info(
            f"{self.epochs:g} epochs of {images} images are {steps:.3g} steps, fewer than optimization.min_steps "
            f"{self.min_steps}: training for {longer.epochs:.4g} epochs"
        )
        return longer

    def lasting(self, epochs: float) -> "Optimization":
        """The same schedule over another number of epochs."""
        factor = epochs / self.epochs
        steps = tuple(factor * step for step in self.steps)
        return replace(self, epochs=epochs, warmup_epochs=factor * self.warmup_epochs, steps=steps)

    def peak(self, batch_size: int) -> float:
        """The absolute learning rate after the warm-up.

        Raises:
            UserError: Neither of the two rates is given.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        if self.base_learning_rate is None:
            fix = "give --optimization.base_learning_rate 1.5e-4 for MAE's rule, or the absolute rate"
            what = "optimization needs one of base_learning_rate and learning_rate, and has none"
            raise UserError("optimization.learning_rate.none", what, fix)
        return absolute_learning_rate(self.base_learning_rate, batch_size)

    def rate(self, epoch: float, batch_size: int, epochs: float | None = None) -> float:
        """The learning rate after so many epochs, of a run of the recipe's length or of another one."""
        return learning_rate(
            epoch,
            peak=self.peak(batch_size),
            floor=self.min_learning_rate,
            warmup_epochs=self.warmup_epochs,
            epochs=epochs or self.epochs,
            decay=self.decay,
            steps=self.steps,
        )


@dataclass(frozen=True)
class Relaxation:
    """Annealing of the Gumbel-softmax and of the KL weight, along half cosines.

    Attributes:
        temperature: Temperature of the Gumbel-softmax at the end, from 1 at the start (paper: 1/16).
        temperature_epochs: Epochs until the temperature reaches this value (paper: 150,000 of 3,000,000 steps).
        divergence_weight: Weight of the KL divergence to the uniform distribution at the end, from 0 at the start
            (paper: 6.6).
        divergence_epochs: Epochs until this weight is reached (paper: 5,000 steps).
        imbalance_weight: Weight, from the start, of a loss that balances how often codes are used; it keeps the
            codebook from collapsing in a short run (paper: none).
        hard: Sample one-hot codes, with a straight-through gradient; then keep the temperature at 1 (paper: false).
        noise: Scale of the Gumbel noise at the end, from 1 at the start (paper: 1). BEiT uses the most likely codes,
            which carry more information after a short run if the noise fades.
        noise_epochs: Epochs until the noise reaches this scale.
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
        rest = ("temperature_epochs", "divergence_weight", "divergence_epochs", "imbalance_weight", "noise_epochs")
        ranges = {"temperature": POSITIVE_FRACTION, "noise": POSITIVE_FRACTION} | dict.fromkeys(rest, NOT_NEGATIVE)
        check_ranges(vars(self), "relaxation", **ranges)

    def at(self, epoch: float) -> tuple[float, float, float]:
        """Temperature, weight of the divergence, and noise."""
        temperature = 1 + (self.temperature - 1) * _half_cosine(epoch, self.temperature_epochs)
        noise = 1 + (self.noise - 1) * _half_cosine(epoch, self.noise_epochs)
        return temperature, self.divergence_weight * _half_cosine(epoch, self.divergence_epochs), noise


def _half_cosine(epoch: float, epochs: float) -> float:
    """From 0 to 1 within so many epochs."""
    done = min(1.0, epoch / epochs) if epochs > 0 else 1.0
    return (1 - math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Machine:
    """Precision, micro-batches and workers on this machine.

    For objectives that compute each image independently, such as MAE, these change results by rounding only. What is
    drawn at random or averaged within a micro-batch depends on its size: color jitter, drop path, the loss under masks
    of varying size (BEiT, MaskFeat), the contrastive loss, a tokenizer's noise and balance loss; in fine-tuning also
    flips, RandAugment, random erasing, mixup, CutMix, patch dropout and batch norm.

    Attributes:
        precision: auto = bf16 autocast where the CPU or GPU supports it, else fp16 autocast with loss scaling on a GPU
            and fp32 on a CPU.
        accumulate_grad_batches: Micro-batches per step on each device; use more if a batch does not fit in memory. auto
            = as few as fit, measured on four images before the first step and kept for the run.
        num_workers: Data-loader processes per device; -1 = one on the CPU, up to 12 per GPU by the number of cores.
        threads: CPU threads of PyTorch; 0 = one per core, but on the command line only as many as other programs leave
            free when training starts. Small models are faster with 1.
        compile: Use torch.compile: about a minute of compilation, then faster steps.
        activation_checkpointing: Keep only the input of each block and recompute the rest in the backward pass: the
            same losses in a fraction of the memory, for one more forward pass per step.
        strategy: ddp = each process holds the whole model; fsdp = weights, gradients and Adam's moments are split
            across processes, for models that do not fit otherwise: the same losses up to rounding, more communication.
        cache: Folder for shards downloaded from a URL, shared by all runs on this machine; by default in the user's
            cache.
        cache_size: Size of this cache in GB.
        pack: Pack a plain folder of images into shards in the user's cache, once; `--no-pack` refuses such a folder.
    """

    precision: Precision = "auto"
    accumulate_grad_batches: int | Literal["auto"] = 1
    num_workers: int = -1
    threads: int = 0
    compile: bool = False
    activation_checkpointing: bool = False
    strategy: Literal["ddp", "fsdp"] = "ddp"
    cache: Path | None = None
    cache_size: float = 20.0
    pack: bool = True

    def __post_init__(self) -> None:
        ranges = {"cache_size": POSITIVE, "threads": Range(0, PROCESSES), "num_workers": Range(-1, PROCESSES)}
        ranges |= {} if self.accumulate_grad_batches == "auto" else {"accumulate_grad_batches": POSITIVE}
        check_ranges(vars(self), "machine", **ranges)
        if self.compile and self.strategy == "fsdp":
            what = "machine.compile does not support machine.strategy fsdp, which splits the model"
            raise UserError("machine.compile", what, "give --machine.compile false")

    def shard_cache(self) -> Cache:
        """Where shards from a URL go."""
        size = round(self.cache_size * GIGABYTE)
        return Cache(size=size) if self.cache is None else Cache(self.cache, size)

    def loader_workers(self) -> int:
        """Processes that decode: one beside a processor that trains, up to 12 for each GPU."""
        if self.num_workers >= 0:
            return self.num_workers
        if not torch.cuda.is_available():
            return 1
        return max(1, min(12, cores() // max(1, torch.cuda.device_count())))


@dataclass(frozen=True)
class Intervals:
    """How often to log, save and score, in optimizer steps.

    Attributes:
        log_every_n_steps: Steps between two lines of metrics.
        checkpoint_every_n_steps: Steps between two checkpoints.
        eval_every_n_steps: Steps between two evaluations: plots of predictions, and a score on validation images.
    """

    log_every_n_steps: int = 20
    checkpoint_every_n_steps: int = 500
    eval_every_n_steps: int = 1000

    def __post_init__(self) -> None:
        check_ranges(vars(self), "intervals", **dict.fromkeys(vars(self), POSITIVE))


@dataclass(frozen=True)
class Plan:
    """The length of a run by arithmetic: the stream of samples is epochs * samples long, cut into global batches.

    Attributes:
        samples: Samples in an epoch.
        batch_size: Images a step over all devices and micro-batches.
        epochs: Passes.
        seed: Of the run: data order, crops, masks and drop path are functions of it.
        data: Fingerprint of the samples.
        shards: Of each shard a short hash of what is in it.
        mix_shards: Shards that are mixed at a time; 0 = all samples.
    """

    samples: int
    batch_size: int
    epochs: float
    seed: int
    data: str = ""
    shards: dict[str, str] = field(default_factory=dict)
    mix_shards: int = 0

    def __post_init__(self) -> None:
        check_ranges(vars(self), "data", batch_size=POSITIVE, mix_shards=NOT_NEGATIVE)
        check_ranges(vars(self), "optimization", epochs=POSITIVE)

    @property
    def steps(self) -> int:
        """Steps of the whole run; at least one."""
        return max(1, round(self.epochs * self.samples / self.batch_size))

    def epoch(self, step: int) -> float:
        """Passes done before this step."""
        return step * self.batch_size / self.samples

    def check_continues(self, before: dict[str, Any], run: Path, allow_data_change: bool = False) -> None:
        """Refuse to resume on another stream of samples; another number of epochs is another end of the same stream.

        Args:
            before: The plan that the checkpoint was made under.
            run: Its folder.
            allow_data_change: The user knows that the samples are others.

        Raises:
            UserError: Names what differs.
        """
        if changed := [name for name in ("batch_size", "seed", "mix_shards") if getattr(self, name) != before[name]]:
            said = [f"{name} {before[name]} is now {getattr(self, name)}" for name in changed]
            raise UserError(
                "resume.settings",
                f"{run} cannot be resumed: {', '.join(said)}",
                "resume with the settings it was started with",
            )
        if self.has_data_of(before):
            return
        difference = f"{before['samples']} samples are now {self.samples}; {_difference(before['shards'], self.shards)}"
        if not allow_data_change:
            fix = "resume with the data it was started with, or give --allow-data-change"
            raise UserError("resume.data", f"{run} cannot be resumed: {difference}", fix)
        log.warning(f"the data has changed: {difference}")

    def has_data_of(self, other: dict[str, Any]) -> bool:
        """Whether another plan, as a checkpoint holds it, goes over the same samples."""
        return (self.samples, self.data) == (other["samples"], other["data"])


def _difference(before: dict[str, str], now: dict[str, str]) -> str:
    """Which shards are gone, new or changed; a few of each by name."""
    groups = {
        "gone": [name for name in before if name not in now],
        "new": [name for name in now if name not in before],
        "changed": [name for name in now if name in before and now[name] != before[name]],
    }
    named = {what: ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") for what, names in groups.items()}
    said = [f"{len(names)} shards {what} ({named[what]})" for what, names in groups.items() if names]
    return ", ".join(said) or "other samples of the same shards"
