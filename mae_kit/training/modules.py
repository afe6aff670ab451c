"""Pretraining and the training of a tokenizer as LightningModules."""

import math
from typing import Any

from torch import Tensor

from mae_kit.classes.configured import build
from mae_kit.data.loading.batch import Batch
from mae_kit.data.transforms.augment import PretrainAugment
from mae_kit.encoders.tokenizers import DVAE
from mae_kit.errors import UserError
from mae_kit.objectives import Objective
from mae_kit.randomness import repeated
from mae_kit.training.config import Optimization, Relaxation
from mae_kit.training.module import TrainingModule, statistics
from mae_kit.training.optimizer import Group, parameter_groups
from mae_kit.training.ranges import POSITIVE, check_ranges


class PretrainModule(TrainingModule):
    """Pretrain the encoder of an objective, from any loader of images in [0, 255] (uint8) or [0, 1] (float).

        module = PretrainModule(MAE(ViT("vit_tiny_patch16_224", img_size=64, patch_size=8)), base_lr=1.5e-4)
        Trainer(max_epochs=10).fit(module, ShardDataModule("shards", batch_size=256, image_size=64))

    Args:
        objective: The objective to train, or its `config`, from which `load_from_checkpoint` rebuilds it.
        lr: Absolute learning rate.
        base_lr: Learning rate for a batch of 256 images, in place of `lr` (MAE: 1.5e-4).
        mean: Mean of each channel in [0, 1]; by default the data module's, or ImageNet's.
        std: Standard deviation of each channel in [0, 1].
        flip: Flip half of the images horizontally.
        color_jitter: Strength of brightness, contrast and saturation jitter (BEiT: .4); RGB only.
        masks: Masks of each image in a step.
        seed: Seed of everything random.
        **optimization: Further fields of `Optimization`: weight_decay, betas, clip, warmup_epochs, epochs (the length
            of the schedule; without it the rate stays constant after the warm-up)...

    Validation logs `val_loss`.

    Raises:
        UserError: Unusable settings; several masks for an objective that tells the images of a batch apart; float
            images outside [0, 1].
    """

    def __init__(
        self,
        objective: Objective | dict[str, Any],
        lr: float | None = None,
        base_lr: float | None = None,
        *,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        flip: bool = True,
        color_jitter: float = 0.0,
        masks: int = 1,
        seed: int = 0,
        **optimization: Any,
    ):
        super().__init__(Optimization.of(lr, base_lr, **optimization), seed)
        self.objective: Objective = build(objective) if isinstance(objective, dict) else objective
        check_ranges({"masks": masks}, "data", masks=POSITIVE)
        if masks > 1 and self.objective.contrasts:
            what = f"{type(self.objective).__name__} would be asked to tell an image from itself"
            raise UserError("data.masks", f"data.masks is {masks}, but {what}", "leave data.masks out")
        self.masks = masks
        self._given = {"mean": mean, "std": std, "flip": flip, "color_jitter": color_jitter}
        self.save_hyperparameters(
            {"objective": self.objective.config, "lr": lr, "base_lr": base_lr, "masks": masks, "seed": seed}
            | self._given
            | optimization
        )
        if mean is not None:
            self._normalize_with(mean, std)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self._normalize_with(self._given["mean"], self._given["std"], getattr(self.trainer, "datamodule", None))

    def _normalize_with(self, mean: list[float] | None, std: list[float] | None, data: Any = None) -> None:
        mean, std = statistics(mean, std, self.objective.encoder.channels, data)
        self.objective.set_statistics(mean, std)
        self.augment = PretrainAugment(mean, std, self._given["flip"], self._given["color_jitter"])
        self.hparams.update({"mean": mean, "std": std})

    def compile_model(self) -> None:
        self.objective.compile()

    def groups(self) -> list[Group]:
        return parameter_groups(self.objective, self.optimization.weight_decay, self.objective.no_decay)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        images, seeds = self.augment(batch.images, batch.seeds), batch.seeds
        if self.masks > 1:
            images, seeds = images.repeat_interleave(self.masks, dim=0), repeated(seeds, self.masks)
        outcome = self.objective(images, seeds)
        return {"loss": outcome.loss, **outcome.logs}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        batch = self.as_batch(batch)
        outcome = self.objective(self.augment.normalize(batch.images), batch.seeds)
        self.log("val_loss", outcome.loss, batch_size=len(batch.images), sync_dist=True)


class TokenizerModule(TrainingModule):
    """Train a discrete VAE, whose codes BEiT predicts (Ramesh et al., arXiv 2102.12092).

    Args:
        tokenizer: The tokenizer to train, or its `config`.
        lr: Absolute learning rate.
        base_lr: Learning rate for a batch of 256 images, in place of `lr`.
        relaxation: Annealing of the Gumbel-softmax and of the KL weight (`Relaxation`), or its fields.
        flip: Flip half of the images horizontally.
        seed: Seed of everything random.
        **optimization: Further fields of `Optimization`.
    """

    def __init__(
        self,
        tokenizer: DVAE | dict[str, Any],
        lr: float | None = None,
        base_lr: float | None = None,
        *,
        relaxation: Relaxation | dict[str, Any] = Relaxation(),
        flip: bool = True,
        seed: int = 0,
        **optimization: Any,
    ):
        super().__init__(Optimization.of(lr, base_lr, **optimization), seed)
        self.tokenizer: DVAE = build(tokenizer) if isinstance(tokenizer, dict) else tokenizer
        self.relaxation = Relaxation(**relaxation) if isinstance(relaxation, dict) else relaxation
        own = {"tokenizer": self.tokenizer.config, "relaxation": vars(self.relaxation), "flip": flip, "seed": seed}
        self.save_hyperparameters(own | {"lr": lr, "base_lr": base_lr} | optimization)
        channels = self.tokenizer.channels
        self.augment = PretrainAugment([0.0] * channels, [1.0] * channels, flip)

    def compile_model(self) -> None:
        self.tokenizer.compile()

    def groups(self) -> list[Group]:
        return parameter_groups(self.tokenizer, self.optimization.weight_decay)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        temperature, weight, noise = self.relaxation.at(self.epoch())
        evidence = self.tokenizer(self.augment(batch.images, batch.seeds), temperature, self.relaxation.hard, noise)
        values = math.prod(self.tokenizer.stride) * self.tokenizer.channels  # that a code stands for
        loss = evidence.error + weight / values * evidence.divergence
        loss = loss + self.relaxation.imbalance_weight * evidence.imbalance
        return {"loss": loss, **evidence._asdict()}
