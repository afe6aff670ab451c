"""From a training that can start to one that is over: what the commands have in common."""

import logging
from dataclasses import asdict
from functools import partial
from typing import Any

from pytorch_lightning.callbacks import Callback

from mae_kit.data.loading.loader import TrainBatches
from mae_kit.training.best import Best, is_over
from mae_kit.training.checkpoint import State
from mae_kit.training.config import Intervals, Machine
from mae_kit.training.fit import announce, bytes_to_write, fit
from mae_kit.training.module import TrainingModule
from mae_kit.training.precision import best_device, resolve
from mae_kit.training.ranks import SameOnAllRanks
from mae_kit.training.run import Run, recipe_of
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
    best: Best | None = None,
) -> int:
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
        best: May end the training before its last step.

    Returns:
        The last step.
    """
    start, plan = state["global_step"] if state else 0, stream.plan
    begin = partial(run.start, arguments, start, bytes_to_write(module))
    if is_over(start, plan.steps, best) and run.is_complete(start):
        begin()
        log.info(f"{run.path} is complete: it has trained for {start} of {plan.steps} steps")
        return start
    if machine.compile:
        module.compile_model()
    if stream.replica.world_size == 1:
        begin()
    else:
        settings = recipe_of(arguments) | {"samples": asdict(plan), "start": start}
        callbacks = [SameOnAllRanks(settings, begin), *callbacks]
    log.info(f"run folder: {run.path}")
    return fit(module, batches, plan, stream.replica, machine, intervals, run, callbacks, start)


def planned(module: TrainingModule, stream: Stream, machine: Machine, run: Run, state: State | None) -> dict[str, Any]:
    """Log what `train` would do, in place of it; neither makes the run's folder nor writes to it.

    Args:
        module: What would be trained.
        stream: Length of the run, and this process's part of it.
        machine: Where and how it would be computed.
        run: Its folder.
        state: The checkpoint to resume from; None to start.

    Returns:
        The plan: `run`, the folder; `steps`, `start`, the step it begins after, `images` per epoch, `batch_size`,
        `epochs`, `device`, `precision` as Lightning names it, and `bytes` that checkpoints and results take at most.

    Raises:
        UserError: The folder cannot be written, or its disk has too little room.
    """
    start, plan, needed = state["global_step"] if state else 0, stream.plan, bytes_to_write(module)
    run.check_writable()
    run.check_disk(needed)
    announce(module, plan, machine, stream.replica, start)
    device = best_device()
    log.info(f"device {device}; checkpoints and results take up to {needed / 1e6:,.3g} MB in {run.path}")
    log.info("dry run: nothing was trained")
    return {
        "run": str(run.path),
        "steps": plan.steps,
        "start": start,
        "images": plan.samples,
        "batch_size": plan.batch_size,
        "epochs": plan.epochs,
        "device": device,
        "precision": resolve(machine.precision),
        "bytes": needed,
    }
