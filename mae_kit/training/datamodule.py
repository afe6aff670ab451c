"""Shards as a LightningDataModule whose samples, crops and order are a function of (seed, step)."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pytorch_lightning import LightningDataModule
from torch import Tensor

from mae_kit.data.index.exclusions import kept
from mae_kit.data.index.open import open_index
from mae_kit.data.index.statistics import choose_statistics, fit_channels
from mae_kit.data.loading.batch import Batch
from mae_kit.data.loading.loader import EvaluationBatches, Replica, TrainBatches, TrainerLoader
from mae_kit.data.resolve import resolve, resolve_pair
from mae_kit.data.transforms.augment import PretrainAugment
from mae_kit.errors import UserError
from mae_kit.training.config import Machine, Plan


class ShardDataModule(LightningDataModule):
    """Images that `mae-kit shard` packed, for any Trainer or your own training loop.

    Batches are uint8, or fp32 from 0 to 255 for images of more than 8 bits; `transform` flips and normalizes them for
    your own loop, while modules of mae_kit do it themselves. A Trainer's epoch is the largest number of whole batches
    in the data. The stream of samples runs on from epoch to epoch, so a run resumed by `ckpt_path=` sees the same
    samples and crops.

    Args:
        data: A folder that `mae-kit shard` made, a pattern such as "DIR/train-*.tar", or a URL of shards.
        batch_size: Images per optimizer step, over all devices and micro-batches.
        image_size: Side in pixels, or height and width.
        val: Shards to validate on; by default the validation split of `data`, where it has one.
        seed: Seed of order, crops and flips.
        crop_scale: Smallest and largest fraction of an image's area that a training crop covers.
        crop_pct: Fraction of the shorter side that the center crop for validation keeps.
        channels: Channels to decode to.
        mean: Mean of each channel in [0, 1]; by default that of the images (stats.json, or a sample); known after
            `setup`.
        std: Standard deviation of each channel in [0, 1].
        flip: Flip half of the images horizontally in `transform`.
        exclude: File that lists samples to leave out: the duplicates.jsonl of `mae-kit dedup`.
        mix_shards: Shuffle samples among this many shards at a time; 0 = among all.
        num_workers: Data-loader processes per device; -1 = one on the CPU, up to 12 per GPU by the number of cores.

    Attributes:
        plan: Length of an epoch and order of the samples, once `setup` has run.
        classes: Number of classes, or None.

    Raises:
        UserError: No shards, fewer samples than a batch, or a batch that the devices cannot split.
    """

    def __init__(
        self,
        data: str | Path,
        *,
        batch_size: int,
        image_size: int | tuple[int, int],
        val: str | Path | None = None,
        seed: int = 0,
        crop_scale: tuple[float, float] = (0.2, 1.0),
        crop_pct: float = 0.875,
        channels: int = 3,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        flip: bool = True,
        exclude: str | None = None,
        mix_shards: int = 0,
        num_workers: int = -1,
    ):
        super().__init__()
        self.data, self.val, self.batch_size, self.seed = str(data), val and str(val), batch_size, seed
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        self.crop_scale, self.crop_pct, self.channels = crop_scale, crop_pct, channels
        self.mean, self.std, self.flip = mean, std, flip
        self.given_statistics = mean is not None
        self.exclude, self.mix_shards, self.num_workers = exclude, mix_shards, num_workers
        self.plan: Plan | None = None

    def setup(self, stage: str = "fit") -> None:
        """Open the shards and fix the order of the samples."""
        supervised = self.trainer is not None and getattr(self.trainer.lightning_module, "supervised", False)
        train = resolve_pair(self.data, self.val)[0] if supervised else resolve(self.data, "train")
        index = open_index(train)
        index.check_mix_shards(self.mix_shards)
        samples = kept(index, self.exclude)
        self.rows = np.intersect1d(index.labeled(), samples.rows) if supervised else samples.rows
        if len(self.rows) < self.batch_size:
            what = f"{self.data} holds {len(self.rows)} images, fewer than batch_size {self.batch_size}"
            raise UserError("data.batch_size.datamodule", what, f"choose {max(1, len(self.rows))} or less")
        self.index, self.classes = index, index.class_count
        self.mean, self.std = fit_channels(choose_statistics(self.mean, self.std, index), self.channels)
        self.augment = PretrainAugment(self.mean, self.std, self.flip)
        held = samples.fingerprint, index.contents
        self.plan = Plan(len(self.rows), self.batch_size, 1.0, self.seed, *held, self.mix_shards)

    @property
    def replica(self) -> Replica:
        """This process and its part of each step."""
        if self.trainer is None:
            return Replica()
        return Replica(self.trainer.global_rank, self.trainer.world_size, self.trainer.accumulate_grad_batches)

    def _step(self) -> int:
        return self.trainer.global_step if self.trainer is not None else 0

    def train_dataloader(self) -> TrainerLoader:
        """Batches of this process, from the Trainer's step on; without a Trainer one epoch from the start."""
        replica, size = self.replica, (self.image_size[0], self.image_size[1])
        replica.check_batch_size(self.batch_size)
        form = self.batch_size, size, self.channels, self.crop_scale
        batches = TrainBatches(self.index, self.rows, *form, self.seed, replica, self.mix_shards)
        length = len(self.rows) // self.batch_size * replica.micro_batches
        workers = Machine(num_workers=self.num_workers).loader_workers()
        return TrainerLoader(
            batches, lambda: self._step() * replica.micro_batches, length, workers, torch.cuda.is_available()
        )

    def val_dataloader(self) -> EvaluationBatches | list[Batch]:
        """This process's part of the labeled validation samples, center-cropped; empty where none are held out."""
        try:
            index = open_index(resolve_pair(self.data, self.val)[1])
        except UserError as error:
            if error.key == "data.no_val":
                return []
            raise
        replica, (height, width) = self.replica, self.image_size
        rows = index.labeled()[replica.rank :: replica.world_size]
        return EvaluationBatches(index, rows, self.batch_size, (height, width), self.channels, self.crop_pct)

    def transform(self, batch: Batch) -> Batch:
        """Flip, and normalize to float; `images` become Float [b c h w]."""
        images: Float[Tensor, "b c h w"] = self.augment.to(batch.images.device)(batch.images, batch.seeds)
        return batch._replace(images=images)

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.plan) if self.plan else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises UserError where the checkpoint is of other samples or another order."""
        if self.plan and state_dict:
            replace(self.plan).check_continues(state_dict, Path("the checkpoint"))
