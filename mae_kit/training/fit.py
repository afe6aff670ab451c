"""Runs a training to its end: Lightning's loop with our checkpoints, signals and record, and none of its state."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import psutil
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.distributed import DistError
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset

from mae_kit.data.loading.batch import Batch
from mae_kit.data.loading.loader import Replica, TrainerLoader
from mae_kit.encoders.attention import write_out
from mae_kit.encoders.recompute import recompute_blocks
from mae_kit.errors import UserError
from mae_kit.parallel.processes import cores
from mae_kit.training.audit import AuditSamples
from mae_kit.training.checkpoint import DurableCheckpointIO, State, checkpoint_path
from mae_kit.training.checkpoint_callback import KEPT, Checkpoints
from mae_kit.training.config import Intervals, Machine, Plan
from mae_kit.training.guard import SkipNonFinite
from mae_kit.training.memory import keep_freed_memory
from mae_kit.training.module import TrainingModule
from mae_kit.training.outbox import Outbox
from mae_kit.training.precision import fused_attention_is_slow, precision_plugins, resolve_with_reason
from mae_kit.training.process_group import PATIENCE, RestartableDDP
from mae_kit.training.quarantine import Quarantine
from mae_kit.training.record import Record
from mae_kit.training.run import Run
from mae_kit.training.sharded import Sharded
from mae_kit.training.signals import StopOnSignal, TakeBack

log = logging.getLogger(__name__)
_NEEDED = {"plan", "state_dict", "optimizer_states", "loops", "callbacks", "audit", "record", "bad_samples"}
_OF_PEERS = re.compile("gloo|NCCL|Connection (closed|reset)|Broken pipe|process group", re.IGNORECASE)


def this_replica(machine: Machine, batch_size: int) -> Replica:
    """This process among those that train together, from what torchrun says.

    Raises:
        UserError: The batch does not divide among the devices and micro-batches.
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    parts = 1 if machine.accumulate_grad_batches == "auto" else machine.accumulate_grad_batches
    replica = Replica(int(os.environ.get("RANK", 0)), world, parts)
    replica.check_batch_size(batch_size)
    return replica


def check_resumable(module: TrainingModule, plan: Plan, state: State, run: Run, allow_data_change: bool) -> None:
    """Load the weights of a checkpoint, as a test that it is of this training; `fit` restores all else.

    Raises:
        UserError: It is of other data, another batch size or another model, or beyond the end; names what differs.
    """
    if missing := _NEEDED - state.keys():
        what = f"the checkpoint in {run.path} lacks {', '.join(sorted(missing))}"
        raise UserError("checkpoint.format.state", what, "resume with the version of mae_kit that wrote it")
    plan.check_continues(state["plan"], run.path, allow_data_change)
    _check_length(module, plan, state, run)
    try:
        module.load_state_dict(state["state_dict"], strict=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        what = f"the checkpoint in {run.path} is of another model ({reason})"
        raise UserError("run.other_model", what, "resume with the recipe it was started with") from None


def _check_length(module: TrainingModule, plan: Plan, state: State, run: Run) -> None:
    """Refuse a run that would end before it stands, and log what another length does to the learning rate."""
    step, before = state["global_step"], state["plan"]["epochs"]
    if step > plan.steps:
        what = f"{run.path} has trained for {plan.epoch(step):g} epochs, more than {plan.epochs:g}"
        raise UserError("optimization.epochs", what, f"give --optimization.epochs {before:g}, or another --run")
    if before != plan.epochs and module.optimization.decay != "steps":
        rate, epoch = module.optimization.rate, plan.epoch(step)
        rates = [rate(epoch, plan.batch_size, length) for length in (before, plan.epochs)]
        log.warning(
            f"resuming with {plan.epochs:g} epochs in place of {before:g}, and the schedule of that length: after step "
            f"{step} the learning rate is {rates[1]:.3g}, not {rates[0]:.3g}"
        )


def bytes_to_write(module: nn.Module) -> int:
    """Bytes of the results, and of the checkpoints that are kept while the next one is written."""
    sizes = {name: t.numel() * t.element_size() for name, t in module.state_dict().items()}
    moments = 2 * sum(sizes[name] for name, p in module.named_parameters() if p.requires_grad)
    return (KEPT + 1) * (sum(sizes.values()) + moments) + 2 * sum(sizes.values())


def fit(
    module: TrainingModule,
    batches: Dataset[Batch],
    plan: Plan,
    replica: Replica,
    machine: Machine,
    intervals: Intervals,
    run: Run,
    callbacks: list[Callback],
    start: int = 0,
) -> int:
    """Train to the plan's last step, or until a callback ends it; exits with 143 or 130 after a signal.

    Args:
        module: What is trained.
        batches: Item step * micro_batches + number is this rank's micro-batch.
        plan: Length of the run.
        replica: This process.
        machine: Precision, devices, workers.
        intervals: How often to log and to save.
        run: Its folder.
        callbacks: Plots and scores.
        start: Step of the checkpoint to resume from; 0 for none.

    Returns:
        The last step.

    Raises:
        UserError: The last checkpoint, or a line of the metrics, could not be written; or another rank is gone.
    """
    prepare_machine(module, machine)
    module.plan = plan
    workers = machine.loader_workers()
    parts = replica.micro_batches
    position = lambda: module.trainer.global_step * parts  # noqa: E731
    loader = TrainerLoader(batches, position, plan.steps * parts, workers, torch.cuda.is_available())
    record, outbox = Record(run, intervals.log_every_n_steps, loader), Outbox()
    checkpoints = Checkpoints(run.checkpoints, intervals.checkpoint_every_n_steps)

    def rescue(leave: Callable[[], None]) -> None:
        with loader.held() as waits:
            if waits and replica.world_size == 1:
                if signals.between_steps and trainer.global_step > start:
                    checkpoints.save(trainer)
                leave()

    files = DurableCheckpointIO()
    signals = StopOnSignal(f"continue with --resume {run.path}", rescue, lambda: files.writing)
    announce(module, plan, machine, replica, start)
    watching = [AuditSamples(plan), Quarantine(run.quarantine, plan), SkipNonFinite(run.checkpoints)]
    all_callbacks = [TakeBack(signals), *watching, outbox, record, checkpoints, *callbacks, signals]
    trainer = _trainer(module, plan.steps, machine, replica, all_callbacks, files)
    with ExitStack() as closings:
        for close in (signals.close, outbox.close, loader.close, record.close):
            closings.callback(close)
        with _peer_losses(replica.world_size):
            trainer.fit(module, loader, ckpt_path=checkpoint_path(run.checkpoints, start) if start else None)
    if checkpoints.failed:
        what = f"checkpoint {checkpoints.failed} of {run.path} was not written"
        raise UserError("run.checkpoint_not_written", what, f"free some space, then --resume {run.path}")
    if signals.code:
        sys.exit(signals.code)
    return trainer.global_step


def fit_quietly(
    module: TrainingModule,
    batches: Dataset[Batch],
    plan: Plan,
    machine: Machine,
    workers: int = 0,
    callbacks: Sequence[Callback] = (),
    hint: str = "",
) -> None:
    """Train in this process as `fit` does, but leave, resume and report nothing; exits with 143 or 130 after a signal.

    Args:
        module: What is trained.
        batches: Item i is the batch of step i.
        plan: Length of the training.
        machine: Precision and threads.
        workers: Processes that load data.
        callbacks: Of the Trainer.
        hint: What to do after a signal.
    """
    prepare_machine(module, machine)
    module.plan = plan
    loader = TrainerLoader(batches, lambda: 0, plan.steps, workers, torch.cuda.is_available())
    signals = StopOnSignal(hint)
    try:
        _trainer(module, plan.steps, machine, Replica(), [TakeBack(signals), *callbacks, signals]).fit(module, loader)
    finally:
        signals.close()
        loader.close()
    if signals.code:
        sys.exit(signals.code)


@contextmanager
def _peer_losses(world_size: int) -> Iterator[None]:
    """Raise UserError in place of what the library of collectives says when another process is gone or stuck."""
    try:
        yield
    except RuntimeError as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).split(". ")[0]
        if world_size == 1 or not (isinstance(error, DistError) or _OF_PEERS.search(str(error))):
            raise
        what = f"another of the {world_size} processes is gone or stuck ({reason[-120:]})"
        raise UserError("run.peer_lost", what, "check its output, then restart all of them with --resume") from None


def prepare_machine(module: nn.Module, machine: Machine) -> None:
    """Let the module be computed as the machine asks; a second time changes nothing."""
    keep_freed_memory()
    if machine.threads:
        torch.set_num_threads(machine.threads)
    elif not torch.cuda.is_available():
        _suggest_one_thread()
    if fused_attention_is_slow(machine.precision):
        write_out(module)
    if machine.activation_checkpointing:
        recompute_blocks(module)


def _suggest_one_thread() -> None:
    """Threads that wait for each other lose much to a busy neighbor; their number is the user's, for it rounds."""
    load = psutil.getloadavg()[0]
    if torch.get_num_threads() > 1 and load > cores():
        log.info(f"other programs keep this machine busy (load {load:.1f}): --machine.threads 1 may be faster")


def announce(module: TrainingModule, plan: Plan, machine: Machine, replica: Replica, start: int = 0) -> None:
    """Say what a user checks first: images, steps, effective batch, learning rate, precision."""
    log.info(f"{plan.samples} images, {plan.epochs:g} epochs = {plan.steps} steps of {plan.batch_size} images")
    images = plan.batch_size // replica.world_size // replica.micro_batches
    devices = f"{replica.world_size} device{'s' * (replica.world_size > 1)}"
    parts = f"{devices} x {images} images x {replica.micro_batches} accumulated"
    base = module.optimization.base_learning_rate
    rule = f" = base {base:g} x {plan.batch_size} / 256" if base is not None else ""
    rate = module.optimization.peak(plan.batch_size)
    log.info(f"effective batch {plan.batch_size} ({parts}), learning rate {rate:.3g}{rule}")
    log.info(resolve_with_reason(machine.precision)[1])
    if start:
        log.info(f"resuming after step {start}")


def _trainer(
    module: TrainingModule,
    steps: int,
    machine: Machine,
    replica: Replica,
    callbacks: list[Callback],
    files: DurableCheckpointIO | None = None,
) -> Trainer:
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings(
        "ignore", message=".*(LeafSpec|num_workers|in eval mode|val_dataloader).*", module="pytorch_lightning"
    )
    # torch 2.15 has a new name for it, and means what we ask for by the old one
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return Trainer(
        accelerator="auto",
        devices=local,
        num_nodes=replica.world_size // local,
        strategy=_strategy(module, machine) if replica.world_size > 1 else "auto",
        max_steps=steps,
        accumulate_grad_batches=replica.micro_batches,
        callbacks=callbacks,
        plugins=[files or DurableCheckpointIO(), *precision_plugins(machine.precision)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )


def _strategy(module: TrainingModule, machine: Machine) -> RestartableDDP:
    """Raises UserError where the model cannot be split."""
    kind = Sharded if machine.strategy == "fsdp" else RestartableDDP
    if kind is Sharded and module.supervised:
        what = "machine.strategy fsdp is for pretraining and tokenizers, not for fine-tuning"
        raise UserError("machine.strategy", what, "give --machine.strategy ddp")
    return kind(broadcast_buffers=_has_batch_norm(module), timeout=PATIENCE)


def _has_batch_norm(module: nn.Module) -> bool:
    """Other buffers are the same everywhere; a tokenizer's would be sent around at each step."""
    return any(isinstance(part, _BatchNorm) for part in module.modules())
