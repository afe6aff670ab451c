"""A training that can start: described by `--dry-run`, or run. What the commands that train have in common."""

import logging
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Generic, TypeVar

from pytorch_lightning.callbacks import Callback

from mae_kit.data.loading.loader import TrainBatches
from mae_kit.training.best import Best, is_over
from mae_kit.training.checkpoint import State
from mae_kit.training.config import Machine
from mae_kit.training.fit import announce, bytes_to_write, fit
from mae_kit.training.module import TrainingModule
from mae_kit.training.precision import best_device, resolve
from mae_kit.training.ranks import SameOnAllRanks
from mae_kit.training.run import Run, recipe_of
from mae_kit.training.samples import Stream

log = logging.getLogger(__name__)

Module = TypeVar("Module", bound=TrainingModule)


@dataclass(frozen=True)
class Job(Generic[Module]):
    """A training whose settings have all been checked, and which has written nothing.

    Attributes:
        module: What is trained.
        stream: Length of the run, and this process's part of it.
        batches: Of this process.
        arguments: Of the command.
    """

    module: Module
    stream: Stream
    batches: TrainBatches
    arguments: dict[str, Any]

    @property
    def machine(self) -> Machine:
        """Where and how it is computed."""
        return self.arguments["machine"]

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments as config.yaml keeps them: with the batch size that the images fill."""
        return self.arguments | {"data": replace(self.arguments["data"], batch_size=self.stream.plan.batch_size)}

    @property
    def is_first(self) -> bool:
        """Whether this process writes the results."""
        return self.stream.replica.rank == 0

    def train(self, run: Run, callbacks: list[Callback], state: State | None, best: Best | None = None) -> int:
        """Start the run's folder and train what is left; a run that is complete is left as it is.

        Args:
            run: Its folder.
            callbacks: Plots and scores.
            state: The checkpoint to resume from, which `check_resumable` has found good; None to start.
            best: May end the training before its last step.

        Returns:
            The last step.
        """
        start, plan, replica = state["global_step"] if state else 0, self.stream.plan, self.stream.replica
        begin = partial(run.start, self.settings, start, bytes_to_write(self.module))
        if is_over(start, plan.steps, best) and run.is_complete(start):
            begin()
            log.info(f"{run.path} is complete: it has trained for {start} of {plan.steps} steps")
            return start
        if self.machine.compile:
            self.module.compile_model()
        if replica.world_size == 1:
            begin()
        else:
            settings = recipe_of(self.settings) | {"samples": asdict(plan), "start": start}
            callbacks = [SameOnAllRanks(settings, begin), *callbacks]
        log.info(f"run folder: {run.path}")
        intervals = self.arguments["intervals"]
        return fit(self.module, self.batches, plan, replica, self.machine, intervals, run, callbacks, start)

    def describe(self, run: Run, state: State | None) -> dict[str, Any]:
        """Log what `train` would do; neither makes the run's folder nor writes to it.

        Args:
            run: Its folder.
            state: The checkpoint to resume from; None to start.

        Returns:
            The plan: `run`, the folder; `steps`, `start`, the step it begins after, `images` per epoch, `batch_size`,
            `epochs`, `device`, `precision` as Lightning names it, and `bytes` that checkpoints and results take at
            most.

        Raises:
            UserError: The folder cannot be written, or its disk has too little room.
        """
        start, plan, needed = state["global_step"] if state else 0, self.stream.plan, bytes_to_write(self.module)
        run.check_writable()
        run.check_disk(needed)
        announce(self.module, plan, self.machine, self.stream.replica, start)
        device = best_device()
        log.info(f"device {device}; checkpoints and results take up to {needed / 1e6:,.3g} MB in {run.path}")
        log.info("dry run: nothing was trained")
        length = {"steps": plan.steps, "start": start, "images": plan.samples}
        length |= {"batch_size": plan.batch_size, "epochs": plan.epochs}
        computed = {"device": device, "precision": resolve(self.machine.precision)}
        return {"run": str(run.path), **length, **computed, "bytes": needed}
