"""Every sample exactly once an epoch, audited: the keys that were trained on add up to those that arithmetic wants.

A key is a hash of (seed, epoch, sample) and travels with the image; the sum of an epoch's keys is right only if every
sample was shown, and none twice (but for a chance of 2 ** -64). The sums are part of the checkpoint, so that they
hold over resumptions, worker counts and world sizes.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mae_kit.data.order import share, sum_of_keys
from mae_kit.training.settings import Plan


class Epoch(NamedTuple):
    """What was shown in one epoch.

    Attributes:
        epoch: Counted from 0.
        shown: Samples trained on.
        keys: The sum of their keys, modulo 2 ** 64.
        expected: What it is if every sample was shown once.
    """

    epoch: int
    shown: int
    keys: int
    expected: int

    def line(self) -> dict[str, Any]:
        """For metrics.jsonl."""
        sums = {"audit_keys": f"{self.keys:016x}", "audit_expected": f"{self.expected:016x}"}
        return {"audit_epoch": self.epoch, "audit_samples": self.shown, **sums}


class Audit:
    """Adds up this rank's part of each epoch.

    Args:
        plan: The length of the run.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self._sums: dict[int, Tensor] = {}  # epoch -> int64 [2]: sum of the keys, wrapping, and their number

    def see(self, keys: Tensor, step: int, rank: int, world: int, part: int, parts: int) -> None:
        """Count the keys of one micro-batch, int64 [b], which stand at this rank's positions of the step."""
        epochs = share(step, self.plan.batch_size, rank, world, part, parts) // self.plan.samples
        for epoch in np.unique(epochs).tolist():
            mine = keys[torch.from_numpy(epochs == epoch).to(keys.device)] if epochs[0] != epochs[-1] else keys
            sums = torch.stack([mine.sum(), torch.tensor(len(mine), device=keys.device)])
            self._sums[epoch] = self._sums[epoch].to(keys.device) + sums if epoch in self._sums else sums

    def over(self, step: int) -> list[int]:
        """The epochs that have ended with this step, all ranks the same."""
        ended = (step + 1) * self.plan.batch_size // self.plan.samples
        return list(range(step * self.plan.batch_size // self.plan.samples, ended))

    def take(self, epochs: list[int]) -> Tensor:
        """This rank's sums of some epochs, int64 [e 2], to be added up over the ranks; they are forgotten here."""
        return torch.stack([self._sums.pop(epoch) for epoch in epochs])

    def state(self) -> tuple[list[int], Tensor]:
        """The epochs that are not over, and this rank's sums of them, int64 [e 2]."""
        epochs = sorted(self._sums)
        return epochs, torch.stack([self._sums[epoch] for epoch in epochs]) if epochs else torch.zeros(0, 2).long()

    def resume(self, epochs: list[int], sums: Tensor) -> None:
        """Go on from the sums over all ranks; one rank does so, the others begin with nothing."""
        self._sums = dict(zip(epochs, sums.unbind(), strict=True))

    def result(self, epoch: int, sums: Tensor) -> Epoch:
        """What the sums over all ranks say, int64 [2]."""
        keys, shown = sums.tolist()
        return Epoch(epoch, shown, keys % 2**64, sum_of_keys(epoch, self.plan.samples, self.plan.seed))
