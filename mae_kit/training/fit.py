"""Runs a training to its end: Lightning's loop with our checkpoints, signals and record, and none of its state."""

import logging
import os
import sys
import warnings

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset

from mae_kit.data.loading.loader import Loader, Share
from mae_kit.encoders.attention import write_out
from mae_kit.errors import UserError
from mae_kit.tensors import Batch
from mae_kit.training.checkpoint import Checkpoints, DurableCheckpointIO
from mae_kit.training.config import Intervals, Machine
from mae_kit.training.memory import keep_freed_memory
from mae_kit.training.module import Training
from mae_kit.training.precision import fused_attention_is_slow, resolve_with_reason
from mae_kit.training.record import Record
from mae_kit.training.signals import Signals, TakeBack

log = logging.getLogger(__name__)


def process_share(machine: Machine, batch_size: int) -> Share:
    """This process's part of each step, from what torchrun says.

    Raises:
        UserError: The batch does not divide among the devices and micro-batches.
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    share = Share(int(os.environ.get("RANK", 0)), world, machine.accumulate_grad_batches)
    if batch_size % (share.world * share.parts):
        raise UserError(
            "data.batch_size",
            f"data.batch_size {batch_size} does not divide among {share.world} devices x {share.parts} micro-batches",
            f"choose a multiple of {share.world * share.parts}",
        )
    return share


def fit(
    module: Training,
    batches: Dataset[Batch],
    share: Share,
    machine: Machine,
    intervals: Intervals,
    callbacks: list[Callback],
) -> None:
    """Train from the module's first step to the plan's last one; leaves with 143 or 130 after a signal.

    Args:
        module: What is trained.
        batches: Item step * parts + part is this rank's micro-batch.
        share: Of this process.
        machine: Precision, devices, workers.
        intervals: How often to log and to save.
        callbacks: Pictures and scores; they find the `Record` in `trainer.callbacks`.
    """
    keep_freed_memory()
    if machine.threads:
        torch.set_num_threads(machine.threads)
    if fused_attention_is_slow(machine.precision):
        write_out(module)
    start, stop = module.start * share.parts, module.plan.steps * share.parts
    loader = Loader(batches, start, stop, machine.loader_workers(), pin=torch.cuda.is_available())
    record, signals = Record(module.run, loader, intervals.log_every_n_steps), Signals()
    announce(module, machine, share)
    checkpoints = Checkpoints(module.run.checkpoints, intervals.checkpoint_every_n_steps)
    trainer = _trainer(module, machine, share, [TakeBack(signals), record, checkpoints, *callbacks, signals])
    try:
        trainer.fit(module, loader)
    finally:
        signals.restore()
        record.close()
        loader.close()
    if checkpoints.failed:
        path = module.run.path
        raise UserError(
            "fit.fit", f"checkpoint {checkpoints.failed} of {path} was not written", f"make room, then --resume {path}"
        )
    if signals.code:
        sys.exit(signals.code)


def finish(
    module: Training,
    model: nn.Module,
    batches: Dataset[Batch],
    share: Share,
    machine: Machine,
    intervals: Intervals,
    callbacks: list[Callback],
) -> None:
    """Train what is left of a run, of `model` within the module; where nothing is, say so."""
    if module.start >= module.plan.steps:
        log.info(f"{module.run.path} is complete: it has trained for {module.start} of {module.plan.steps} steps")
        return
    if machine.compile:
        model.compile()
    fit(module, batches, share, machine, intervals, callbacks)


def announce(module: Training, machine: Machine, share: Share) -> None:
    """Say what a user checks first: images, steps, effective batch, learning rate, precision."""
    plan = module.plan
    log.info(f"{plan.samples} images, {plan.epochs:g} epochs = {plan.steps} steps of {plan.batch_size} images")
    parts = (
        f"{share.world} devices x {plan.batch_size // share.world // share.parts} images x {share.parts} accumulated"
    )
    base = module.optimization.base_learning_rate
    rule = f" = base {base:g} x {plan.batch_size} / 256" if base is not None else ""
    log.info(f"effective batch {plan.batch_size} ({parts}), learning rate {module.peak:.3g}{rule}")
    log.info(resolve_with_reason(machine.precision)[1])
    if module.start:
        log.info(f"resuming after step {module.start}")


def _trainer(module: Training, machine: Machine, share: Share, callbacks: list[Callback]) -> Trainer:
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*(LeafSpec|num_workers|in eval mode).*", module="pytorch_lightning")
    # torch 2.15 has a new name for it, and means what we ask for by the old one
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return Trainer(
        accelerator="auto",
        devices=local,
        num_nodes=share.world // local,
        strategy=DDPStrategy(broadcast_buffers=_has_batch_norm(module)) if share.world > 1 else "auto",
        precision=resolve_with_reason(machine.precision)[0],  # type: ignore[arg-type]
        max_steps=module.plan.steps - module.start,
        accumulate_grad_batches=machine.accumulate_grad_batches,
        callbacks=callbacks,
        plugins=[DurableCheckpointIO()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )


def _has_batch_norm(module: nn.Module) -> bool:
    """Other buffers are the same everywhere; a tokenizer's would be sent around at each step."""
    return any(isinstance(part, _BatchNorm) for part in module.modules())
