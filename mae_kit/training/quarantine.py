"""Samples that do not decode are replaced and listed; too many of them end a run."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from mae_kit.data.loading.batch import Batch
from mae_kit.errors import UserError
from mae_kit.files.durable import append_lines
from mae_kit.training.config import Plan
from mae_kit.training.outbox import deliver
from mae_kit.training.progress import summed

MOST_BAD = 0.2  # fraction of bad samples among those shown that ends a run, once it could not be bad luck
_STATE = "bad_samples"


class Quarantine(Callback):
    """Lists samples that did not decode, one JSON line each.

    Args:
        file: The list; lines are appended.
        plan: Length of the run.
    """

    def __init__(self, file: Path, plan: Plan):
        self.file, self.plan = file, plan
        self._before = self._here = 0  # of all ranks before this process started; of this rank since

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Raises UserError where too many samples do not decode."""
        if not batch.bad:
            return
        deliver(trainer, partial(append_lines, self.file, batch.bad))
        self._here += len(batch.bad)
        shown = max(self.plan.samples, (trainer.global_step + 1) * self.plan.batch_size) / trainer.world_size
        if self._here > MOST_BAD * shown:
            raise UserError(
                "data.bad_samples",
                f"more than {MOST_BAD:.0%} of the images do not decode, see {self.file}",
                "repair the shards: `mae-kit index` names every damaged one",
            )

    def total(self, trainer: Trainer) -> int:
        """Bad samples of all ranks since the run started; all ranks have to ask."""
        return self._before + int(summed(trainer, torch.tensor(self._here)))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[_STATE] = self.total(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._before = checkpoint[_STATE]
