"""Saves checkpoints while a run trains, and keeps the newest two."""

import logging
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.io import CheckpointIO

from mae_kit.errors import UserError
from mae_kit.training.checkpoint import checkpoint_path, checkpoints_in
from mae_kit.training.guard import SkipNonFinite
from mae_kit.training.progress import find, is_complete, step_is_done

log = logging.getLogger(__name__)
KEPT = 2


class Checkpoints(Callback):
    """Saves every so many steps and keeps the newest two.

    Args:
        folder: Of the checkpoints.
        every: Steps between two.

    Attributes:
        failed: The newest checkpoint if it could not be written, else empty.
    """

    def __init__(self, folder: Path, every: int):
        self.folder, self.every = folder, every
        self.failed = ""
        self._saved = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises UserError where the ranks have read different checkpoints: one was written meanwhile."""
        step = trainer.global_step
        start = trainer.strategy.broadcast(step)
        if start != step:
            what = f"a process resumes after step {step}, the first one after step {start}"
            raise UserError("run.ranks_differ", what, "make sure that nothing else writes to the run, then --resume it")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if step_is_done(trainer, batch_idx) and trainer.global_step % self.every == 0:
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write the state of this step, and drop the older ones.

        Before the last step, nothing is saved while steps are skipped: these weights may be why the gradients are not
        finite, and the ones before are what the run goes back to.
        """
        step, guard = trainer.global_step, find(trainer, SkipNonFinite)
        if guard is not None:
            guard.settle(trainer)
        in_doubt = guard is not None and guard.counts["skipped_in_a_row"] > 0 and not is_complete(trainer)
        if step == self._saved or in_doubt:
            return
        self._saved = step
        final = checkpoint_path(self.folder, step)
        try:
            trainer.save_checkpoint(final)
        except OSError as error:  # on the first rank, before the barrier where the others wait
            log.warning(
                f"checkpoint {final} was not written ({error.strerror}): free some space; the one before is kept"
            )
            self.failed = final.name
            trainer.strategy.barrier()
            return
        self.failed = ""
        if trainer.is_global_zero:
            self._drop_others(trainer.strategy.checkpoint_io, final)

    def _drop_others(self, io: CheckpointIO, final: Path) -> None:
        written = checkpoints_in(self.folder)
        passed_over = [path for path in written if path.name > final.name]  # damaged, or this run would start there
        for path in [*passed_over, *written[: -KEPT - len(passed_over)]]:
            io.remove_checkpoint(path)
