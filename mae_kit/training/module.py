"""One training step, whatever is trained: learning rate, keyed randomness, the loss; under any Trainer."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from mae_kit.data.loading.batch import Batch
from mae_kit.data.transforms.augment import IMAGENET_MEAN, IMAGENET_STD
from mae_kit.errors import UserError
from mae_kit.randomness import combine
from mae_kit.training.config import Optimization, Plan
from mae_kit.training.optimizer import Group, build_optimizer
from mae_kit.training.progress import micro_batch_of


class TrainingModule(LightningModule):
    """The base of all trainings. Subclasses define the loss and the parameter groups.

    Batches are a `Batch`, `images`, or `(images, labels)`. Images are uint8 in [0, 255] or float in [0, 1]; the module
    normalizes them, so hand in none that are normalized already: those of the first batch are checked.

    All randomness of a step (masks, drop path, mixup, color) comes from the seeds of a `Batch` or from torch's
    generator, which is seeded before each micro-batch from (seed, step, micro-batch, rank). A run that is resumed by
    `ckpt_path=` therefore needs no generator state and draws the same numbers. The learning rate is a function of the
    epoch; its schedule ends after `optimization.epochs`, whatever the Trainer's limits.

    Args:
        optimization: Optimizer and learning rate.
        seed: Of everything random.

    Attributes:
        plan: Length of the run and order of its samples, where the data module or command knows it.
        rate: The absolute learning rate of the current step.
        images_per_step: Images of an optimizer step over all devices and micro-batches.
        frozen: Parts that stay in eval mode, since they do not learn.
    """

    supervised = False  # whether only labeled samples are of use
    frozen: Sequence[nn.Module] = ()

    def __init__(self, optimization: Optimization, seed: int = 0):
        super().__init__()
        self.optimization, self.seed = optimization, seed
        self.plan: Plan | None = None
        self.rate = 0.0
        self.images_per_step = 0
        self._images_checked = False

    def train(self, mode: bool = True) -> "TrainingModule":
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    @abstractmethod
    def groups(self) -> list[Group]:
        """Return the parameter groups, each with its `lr_scale`."""

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return `loss` and what else is logged, all scalars."""

    @abstractmethod
    def compile_model(self) -> None:
        """Compile what each step calls."""

    def setup(self, stage: str) -> None:
        self.plan = getattr(getattr(self.trainer, "datamodule", None), "plan", None) or self.plan
        self._images_checked = False

    def epoch(self, step: int | None = None) -> float:
        """Passes over the data before a step, by default the current one."""
        step = self.trainer.global_step if step is None else step
        if self.plan is not None:
            return self.plan.epoch(step)
        return step / (self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(self.groups(), self.optimization.optimizer, betas=self.optimization.betas)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        trainer = self.trainer
        part = micro_batch_of(trainer, batch_idx)
        torch.manual_seed(int(combine(self.seed, trainer.global_step, part, self.global_rank)) % 2**63)
        images = len(batch[0]) if isinstance(batch, tuple | list) else len(batch)
        ranks_and_parts = trainer.world_size * trainer.accumulate_grad_batches
        self.images_per_step = self.plan.batch_size if self.plan else images * ranks_and_parts
        self.rate = self.optimization.rate(self.epoch(), self.images_per_step)
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = self.rate * group["lr_scale"]

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        batch = self.as_batch(batch)
        values = self.loss(batch)
        self.log_dict({k: v.detach() for k, v in values.items()}, prog_bar=True, batch_size=len(batch.images))
        return values

    def as_batch(self, batch: Any) -> Batch:
        """Give `images` or `(images, labels)` the form of a `Batch`; seeds are drawn, missing labels are -1.

        Raises:
            UserError: Float images that are not in [0, 1].
        """
        if isinstance(batch, Batch):
            return batch
        images, labels = batch if isinstance(batch, tuple | list) else (batch, None)
        if not self._images_checked:
            _check_colors(images)
            self._images_checked = True
        count = len(images)
        seeds = torch.randint(2**62, (count,)).to(images.device)
        labels = torch.full((count,), -1, device=images.device) if labels is None else labels
        return Batch(images if images.dtype == torch.uint8 else images * 255, labels, seeds, seeds, seeds, [])

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip to the Trainer's value, or else the recipe's."""
        if gradient_clip_val is not None:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif self.optimization.clip:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.optimization.clip)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.plan is not None:
            checkpoint["plan"] = asdict(self.plan)


def statistics(
    mean: list[float] | None, std: list[float] | None, channels: int, data: Any = None
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel in [0, 1]: as given, else the data module's, else ImageNet's for RGB.

    Raises:
        UserError: They are not of as many channels, are unknown, or the data module was given others.
    """
    theirs: Any = getattr(data, "mean", None), getattr(data, "std", None)
    found = list(mean or theirs[0] or IMAGENET_MEAN), list(std or theirs[1] or IMAGENET_STD)
    if not len(found[0]) == len(found[1]) == channels:
        raise UserError(
            "data.mean.images",
            f"mean and std have {len(found[0])} and {len(found[1])} values, images {channels} channels",
            "give one value per channel, as `mae-kit shard` prints them",
        )
    if getattr(data, "given_statistics", True) and theirs[0] and (list(theirs[0]), list(theirs[1])) != found:
        what = f"the module normalizes with {found}, the data module with {theirs}"
        raise UserError("data.mean.both", what, "give mean and std to one of the two")
    return found


def _check_colors(images: Tensor) -> None:
    if images.dtype == torch.uint8:
        return
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        raise UserError(
            "data.images",
            f"float images range from {low:.3g} to {high:.3g}, expected [0, 1]",
            "leave normalization to the module (its arguments mean and std), or pass uint8 images",
        )
