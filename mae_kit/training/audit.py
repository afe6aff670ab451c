"""Every sample exactly once an epoch, audited: the keys of the samples shown add up to those that arithmetic wants.

A key is a hash of (seed, epoch, sample) and travels with the image; the sum of an epoch's keys is right only if every
sample was shown, and none twice (but for a chance of 2 ** -64). A sample that does not decode was not shown: the one in
its place is counted as replaced. The sums are part of the checkpoint, so that they hold over resumptions, worker counts
and world sizes.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from mae_kit.data.loading.batch import Batch
from mae_kit.data.order import step_positions, sum_of_seeds
from mae_kit.training.config import Plan
from mae_kit.training.progress import micro_batch_of, summed


class Epoch(NamedTuple):
    """What was shown in one epoch.

    Attributes:
        epoch: Counted from 0.
        shown: Samples trained on.
        replaced: Those among them that are in the place of a sample that does not decode.
        keys: The sum of their keys, modulo 2 ** 64.
        expected: What it is if every sample was shown once.
    """

    epoch: int
    shown: int
    replaced: int
    keys: int
    expected: int

    def line(self) -> dict[str, Any]:
        """For metrics.jsonl."""
        sums = {"audit_keys": f"{self.keys:016x}", "audit_expected": f"{self.expected:016x}"}
        return {"audit_epoch": self.epoch, "audit_samples": self.shown, "audit_replaced": self.replaced, **sums}


class Audit:
    """Adds up this rank's part of each epoch.

    Args:
        plan: The length of the run.
        first: An epoch before this one is not judged: not all of it was seen.
    """

    def __init__(self, plan: Plan, first: int = 0):
        self.plan, self.first = plan, first
        self._sums: dict[int, Tensor] = {}  # epoch -> int64 [2] on the keys' device: their sum, wrapping; replaced
        self._shown: dict[int, int] = {}

    @classmethod
    def starting_at(cls, plan: Plan, step: int) -> "Audit":
        """One that has not seen the steps before this one."""
        return cls(plan, -(-step * plan.batch_size // plan.samples))

    def see(self, due: Tensor, shown: Tensor, step: int, rank: int, world: int, part: int, parts: int) -> None:
        """Count the samples of one micro-batch.

        Args:
            due: int64 [b]; keys of the samples at this rank's positions of the step.
            shown: int64 [b]; keys of the samples that were shown there.
            step: Of the run.
            rank: Of this process.
            world: Number of processes.
            part: Number of the micro-batch within the step.
            parts: Micro-batches of a step.
        """
        epochs = step_positions(step, self.plan.batch_size, rank, world, part, parts) // self.plan.samples
        counted = torch.stack([shown, (shown != due).long()])
        for epoch in np.unique(epochs).tolist():
            mine = counted[:, torch.from_numpy(epochs == epoch).to(due.device)] if epochs[0] != epochs[-1] else counted
            before = self._sums.get(epoch, torch.zeros(2, dtype=torch.int64))
            self._sums[epoch] = mine.sum(1) + before.to(due.device)
            self._shown[epoch] = self._shown.get(epoch, 0) + mine.shape[1]

    def over(self, step: int) -> list[int]:
        """The epochs to judge that end with this step, the same on all ranks."""
        begun, ended = (at * self.plan.batch_size // self.plan.samples for at in (step, step + 1))
        return list(range(max(self.first, begun), ended))

    def take(self, epochs: list[int]) -> Tensor:
        """This rank's sums of epochs that are over, int64 [e 3], to be added up over the ranks; forgotten here."""
        sums = torch.stack([self._of(epoch) for epoch in epochs])
        for epoch in [epoch for epoch in self._sums if epoch <= max(epochs)]:
            del self._sums[epoch], self._shown[epoch]
        return sums

    def under_way(self, step: int) -> Tensor:
        """This rank's sums, int64 [3], of the epoch that is not over after so many steps."""
        return self._of(step * self.plan.batch_size // self.plan.samples)

    def resume(self, step: int, sums: Tensor) -> None:
        """Go on from the sums over all ranks after so many steps; one rank does so, the others begin with nothing."""
        epoch = step * self.plan.batch_size // self.plan.samples
        self._sums, self._shown = {epoch: sums[:2]}, {epoch: int(sums[2])}

    def _of(self, epoch: int) -> Tensor:
        """Keys, replaced and shown, on the CPU."""
        sums = self._sums.get(epoch, torch.zeros(2, dtype=torch.int64)).cpu()
        return torch.cat([sums, torch.tensor([self._shown.get(epoch, 0)])])

    def result(self, epoch: int, sums: Tensor) -> Epoch:
        """What the sums over all ranks say, int64 [3]."""
        keys, replaced, shown = sums.tolist()
        return Epoch(epoch, shown, replaced, keys % 2**64, sum_of_seeds(epoch, self.plan.samples, self.plan.seed))


class AuditSamples(Callback):
    """Audits a training on batches with seeds; its sums are part of every checkpoint.

    Args:
        plan: Length of the run.
    """

    def __init__(self, plan: Plan):
        self.plan, self.audit = plan, Audit(plan)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        part, parts = micro_batch_of(trainer, batch_idx), trainer.accumulate_grad_batches
        place = trainer.global_step, trainer.global_rank, trainer.world_size, part, parts
        self.audit.see(batch.seeds, batch.shown, *place)

    def ended(self, trainer: Trainer) -> list[Epoch]:
        """The epochs that ended with the last step, usually none; all ranks ask at the same step."""
        epochs = self.audit.over(trainer.global_step - 1)
        if not epochs:
            return []
        sums = summed(trainer, self.audit.take(epochs))
        return [self.audit.result(epoch, row) for epoch, row in zip(epochs, sums.unbind(), strict=True)]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        sums = summed(trainer, self.audit.under_way(trainer.global_step))
        checkpoint["audit"] = {"first": self.audit.first, "sums": sums}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the sums on one rank; where the data have changed, start with the next epoch."""
        step, state = checkpoint["global_step"], checkpoint["audit"]
        if not self.plan.has_data_of(checkpoint["plan"]):
            self.audit = Audit.starting_at(self.plan, step)
            return
        self.audit = Audit(self.plan, state["first"])
        if trainer.is_global_zero:
            self.audit.resume(step, state["sums"])
