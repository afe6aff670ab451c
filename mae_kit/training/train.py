"""From a training that can start to one that is over: what the commands have in common."""

import logging
from typing import Any

from pytorch_lightning.callbacks import Callback

from mae_kit.data.loading.loader import TrainBatches
from mae_kit.training.checkpoint import State
from mae_kit.training.config import Intervals, Machine
from mae_kit.training.fit import bytes_to_write, fit
from mae_kit.training.module import TrainingModule
from mae_kit.training.run import Run
from mae_kit.training.samples import Stream

log = logging.getLogger(__name__)


def train(
    module: TrainingModule,
    batches: TrainBatches,
    stream: Stream,
    machine: Machine,
    intervals: Intervals,
    run: Run,
    callbacks: list[Callback],
    arguments: dict[str, Any],
    state: State | None,
) -> None:
    """Start the run's folder and train what is left; a run that is complete is left as it is.

    Args:
        module: What is trained.
        batches: Of this process.
        stream: Length of the run, and this process's part of it.
        machine: Where and how it is computed.
        intervals: How often to log and to save.
        run: Its folder.
        callbacks: Plots and scores.
        arguments: Of the command, for config.yaml.
        state: The checkpoint to resume from, which `check_resumable` has found good; None to start.
    """
    start, plan = state["global_step"] if state else 0, stream.plan
    run.start(arguments, start, bytes_to_write(module))
    if start >= plan.steps:
        log.info(f"{run.path} is complete: it has trained for {start} of {plan.steps} steps")
        return
    if machine.compile:
        module.compile_model()
    fit(module, batches, plan, stream.share, machine, intervals, run, callbacks, start)
