"""What a run tells while it goes: a bar with time left, images/s and data wait; metrics.jsonl; TensorBoard."""

import json
import logging
import math
import sys
import time
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import psutil
import torch
from jaxtyping import UInt8
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback
from rich.progress import Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from torch import Tensor

from mae_kit.console import bar, console
from mae_kit.data.loading.loader import Loader
from mae_kit.files.durable import append_lines, sync
from mae_kit.files.run_folder import RunFolder
from mae_kit.training.audit import AuditSamples, Epoch
from mae_kit.training.guard import SkipNonFinite
from mae_kit.training.metrics import clock, read_metrics
from mae_kit.training.outbox import deliver
from mae_kit.training.progress import find, is_complete, step_is_done, summed, told_epochs, total_steps
from mae_kit.training.quarantine import Quarantine
from mae_kit.training.tensorboard import EventFile

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30  # where stdout is no terminal
_SHOWN = ("loss", "knn_top1", "knn_map", "val_top1", "val_map", "val_miou", "val_r2")


class Record(Callback):
    """Averages the logged values of each interval and writes them to metrics.jsonl and TensorBoard.

    Args:
        run: The run's folder.
        every: Optimizer steps of an interval.
        loader: Measures how long it was waited for; None if the data loader is another.
    """

    def __init__(self, run: RunFolder, every: int, loader: Loader | None = None):
        self.run, self.loader, self.every = run, loader, every
        self._bar: Progress | None = None
        self._sums: dict[str, Tensor] = {}  # of what is logged, over the steps since `_sums_since`
        self._sums_since = 0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._process = psutil.Process()
        self._started = self._mark = time.perf_counter()
        self._cpu_started = self._cpu_seconds()
        self._mark_step = trainer.global_step
        before = read_metrics(self.run.path) if trainer.is_global_zero else []
        self._seconds_before, self._core_seconds_before = clock(before, "seconds"), clock(before, "core_seconds")
        self._mark_wait, self._line_at = self._waited(), self._seconds_before
        if not trainer.is_global_zero:
            return
        self._events = EventFile(self.run.tensorboard)
        deliver(trainer, partial(self.run.tensorboard.mkdir, exist_ok=True))
        if console.is_terminal:
            self._bar = _bar()
            steps = total_steps(trainer)
            self._task = self._bar.add_task("", total=steps, completed=trainer.global_step, note="")
            self._bar.start()

    def _waited(self) -> float:
        return self.loader.waited if self.loader else 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: dict[str, Tensor], batch: Any, batch_idx: int
    ) -> None:
        self._add(outputs, trainer.accumulate_grad_batches)
        if not step_is_done(trainer, batch_idx):
            return
        step = trainer.global_step
        if self._bar:
            self._bar.update(self._task, completed=step)
        audit = find(trainer, AuditSamples)
        for epoch in audit.ended(trainer) if audit else []:
            if trainer.is_global_zero:
                self._write_audit(trainer, epoch)
        if step % self.every == 0 or is_complete(trainer):
            self._write_interval(trainer, pl_module)

    def _add(self, outputs: dict[str, Tensor], parts: int) -> None:
        """Add a micro-batch; Lightning has divided its loss by their number, but nothing else."""
        for name, value in outputs.items():
            part = value.detach().float() / (1 if name == "loss" else parts)
            self._sums[name] = self._sums[name].to(part.device) + part if name in self._sums else part

    def _write_interval(self, trainer: Trainer, pl_module: Any) -> None:
        """Write the means over ranks and over the steps since the last line."""
        step, sums = trainer.global_step, self._reduced_sums(trainer)
        means = {name: (value / (step - self._sums_since)).item() for name, value in sums.items()}
        self._sums, self._sums_since = {}, step
        values = means | self._counts(trainer) | {"core_seconds": self._core_seconds(trainer)}
        if trainer.is_global_zero:
            self.write(trainer, pl_module, values | self._pace(step, pl_module))

    def _reduced_sums(self, trainer: Trainer) -> dict[str, Tensor]:
        names = sorted(self._sums)
        sums = torch.stack([self._sums[name] for name in names]) if names else torch.zeros(0)
        if trainer.world_size > 1 and names:
            sums = trainer.strategy.reduce(sums, reduce_op="mean")
        return dict(zip(names, sums.unbind(), strict=True))  # type: ignore[union-attr]

    def _counts(self, trainer: Trainer) -> dict[str, float]:
        guard, quarantine = find(trainer, SkipNonFinite), find(trainer, Quarantine)
        counts: dict[str, float] = {}
        if guard:
            guard.settle(trainer)
            counts |= {"gradient_norm": float(guard.gradient_norm), "skipped_steps": guard.counts["skipped_steps"]}
            counts |= {"overflows": overflows} if (overflows := guard.counts["overflows"]) else {}
        return counts | ({"bad_samples": quarantine.total(trainer)} if quarantine else {})

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Flush the metrics, too: a run that resumes there does not write the lines before it again."""
        checkpoint["record"] = {"sums": self._reduced_sums(trainer), "since": self._sums_since}
        if trainer.is_global_zero and self.run.metrics.exists():
            with suppress(OSError):
                sync(self.run.metrics)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["record"]
        self._sums, self._sums_since = dict(state["sums"]), state["since"]

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write both clocks once more: after the last line scores may have come, or steps and then a signal."""
        cores = self._core_seconds(trainer)
        if trainer.is_global_zero:
            self._append(trainer, self._head(trainer, pl_module) | {"core_seconds": cores})

    def _pace(self, step: int, pl_module: Any) -> dict[str, float]:
        now, waited = time.perf_counter(), self._waited()
        elapsed = now - self._mark
        images = (step - self._mark_step) * pl_module.images_per_step
        pace = {
            "lr": pl_module.rate,
            "images_per_second": images / elapsed,
            "data_wait": min(1.0, (waited - self._mark_wait) / elapsed),
        }
        self._mark, self._mark_step, self._mark_wait = now, step, waited
        return pace

    def leave_out(self, seconds: float) -> None:
        """Time since the last line that did not go into steps: it would make them look slow."""
        self._mark += seconds

    def _core_seconds(self, trainer: Trainer) -> float:
        """Processor time of the run, of all processes, which all ask."""
        spent = torch.tensor(self._cpu_seconds() - self._cpu_started)
        return self._core_seconds_before + float(summed(trainer, spent))

    def _cpu_seconds(self) -> float:
        """Processor time of this process and its loader workers: what a busy neighbor does not change."""
        family = [self._process, *self._process.children(recursive=True)]
        return sum(times.user + times.system for times in (member.cpu_times() for member in family))

    def write(self, trainer: Trainer, pl_module: Any, values: dict[str, float]) -> None:
        """Write one line of metrics.jsonl at this step, the same to TensorBoard, and the bar's text."""
        head = self._head(trainer, pl_module)
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._append(trainer, head | finite)
        deliver(trainer, partial(self._events.write, dict(values), trainer.global_step, time.time()))
        self._show(trainer, pl_module, head | values)

    def write_image(self, trainer: Trainer, tag: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Write an image at this step to TensorBoard."""
        deliver(trainer, partial(self._events.write_image, tag, image, trainer.global_step, time.time()))

    def _append(self, trainer: Trainer, line: dict[str, Any]) -> None:
        deliver(trainer, partial(append_lines, self.run.metrics, [json.dumps(line)]))

    def _head(self, trainer: Trainer, pl_module: Any) -> dict[str, float]:
        """Start a line; the clock continues where the run was left."""
        seconds = self._seconds_before + time.perf_counter() - self._started
        return {"step": trainer.global_step, "epoch": pl_module.epoch(), "seconds": seconds}

    def _write_audit(self, trainer: Trainer, epoch: Epoch) -> None:
        """Write one line an epoch, which proves that it showed every sample exactly once, or counts the replaced."""
        self._append(trainer, {"step": trainer.global_step, **epoch.line()})
        if epoch.replaced:
            log.warning(f"epoch {epoch.epoch}: {epoch.replaced} images do not decode; others were shown in their place")
        elif epoch.keys != epoch.expected:
            log.warning(f"epoch {epoch.epoch} did not show every sample exactly once: please report this")

    def _show(self, trainer: Trainer, pl_module: Any, line: dict[str, float]) -> None:
        steps = total_steps(trainer)
        parts = [f"epoch {line['epoch']:.1f}/{told_epochs(pl_module.epoch(steps))}"]
        parts += [f"{name} {line[name]:.4f}" for name in _SHOWN if name in line]
        if "images_per_second" in line:
            parts += [f"{line['images_per_second']:,.0f} images/s", f"data wait {line['data_wait']:.0%}"]
        if self._bar:
            self._bar.update(self._task, note="  ".join(parts))
        elif line["seconds"] - self._line_at > SECONDS_BETWEEN_LINES or line["step"] == steps:
            self._line_at = line["seconds"]
            log.info(f"step {line['step']}/{steps}  " + "  ".join(parts))

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar:
            self._bar.stop()
            self._bar = None
        with suppress(OSError):  # the command says so at its end
            sys.stdout.flush()


def _bar() -> Progress:
    """One line at any width: where it is short it has no bar, and the end of the note is cut."""
    drawn = [bar()] if console.width >= 100 else []
    columns = [*drawn, TextColumn("{task.completed}/{task.total} steps", markup=False), TimeRemainingColumn()]
    note = TextColumn(
        "{task.fields[note]}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
    )
    return Progress(*columns, note, console=console, expand=True)


def log_metrics(trainer: Trainer, pl_module: Any, values: dict[str, float]) -> None:
    """Write values at this step to the `Record` of a trainer, or to its loggers where it has none; on rank 0."""
    if record := find(trainer, Record):
        record.write(trainer, pl_module, values)
        return
    for logger in trainer.loggers:
        logger.log_metrics(values, trainer.global_step)
