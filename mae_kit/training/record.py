"""What a run tells while it goes: a bar with time left, images/s and data wait; metrics.jsonl; TensorBoard."""

import json
import logging
import math
import sys
import time
from typing import Any

import psutil
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from rich.progress import Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from torch.utils.tensorboard.writer import SummaryWriter

from mae_kit.console import bar, console
from mae_kit.data.loading.loader import Loader
from mae_kit.training.audit import Epoch
from mae_kit.training.metrics import FILE as METRICS
from mae_kit.training.metrics import clock, read_metrics
from mae_kit.training.run import Run

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30  # where stdout is no terminal
_TOLD = ("loss", "knn_top1", "knn_map", "val_top1", "val_map")


class Record(Callback):
    """Averages the logged values of each interval and writes them.

    Args:
        run: The run's folder.
        loader: Says how long it was waited for.
        every: Steps of an interval.
    """

    def __init__(self, run: Run, loader: Loader, every: int):
        self.run, self.loader, self.every = run, loader, every
        self._bar: Progress | None = None

    @classmethod
    def of(cls, trainer: Trainer) -> "Record":
        """The record of a training."""
        return next(callback for callback in trainer.callbacks if isinstance(callback, cls))  # type: ignore[attr-defined]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._process = psutil.Process()
        self._started = self._mark = time.perf_counter()
        self._cpu_started = self._cpu_seconds()
        self._mark_step: int = pl_module.step  # type: ignore[assignment]
        before = read_metrics(self.run.path) if trainer.is_global_zero else []
        self._seconds_before, self._core_seconds_before = clock(before, "seconds"), clock(before, "core_seconds")
        self._mark_wait, self._line_at = self.loader.waited, self._seconds_before
        if not trainer.is_global_zero:
            return
        self._tensorboard = SummaryWriter(str(self.run.path / "tensorboard"))
        if console.is_terminal:
            self._bar = _bar()
            self._task = self._bar.add_task("", total=pl_module.plan.steps, completed=pl_module.step, note="")  # type: ignore[attr-defined]
            self._bar.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not pl_module.step_is_done():  # type: ignore[operator]
            return
        step: int = pl_module.step  # type: ignore[assignment]
        if self._bar:
            self._bar.update(self._task, completed=step)
        for epoch in pl_module.audited():  # type: ignore[operator]
            if trainer.is_global_zero:
                self._write_audit(step, epoch)
        if step % self.every == 0 or step == pl_module.plan.steps:  # type: ignore[attr-defined]
            means = pl_module.interval_means()  # type: ignore[operator]
            cores = self._core_seconds(pl_module)
            if trainer.is_global_zero:
                self.write(pl_module, means | self._pace(pl_module, step, cores))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Both clocks once more: after the last line scores may have come, or steps and then a signal."""
        cores = self._core_seconds(pl_module)
        if trainer.is_global_zero:
            self.run.append(METRICS, [json.dumps(self._head(pl_module) | {"core_seconds": cores})])

    def _pace(self, pl_module: Any, step: int, core_seconds: float) -> dict[str, float]:
        now, waited = time.perf_counter(), self.loader.waited
        elapsed = now - self._mark
        images = (step - self._mark_step) * pl_module.plan.batch_size
        pace = {
            "lr": pl_module.learning_rate(),
            "gradient_norm": float(pl_module.gradient_norm),
            "images_per_second": images / elapsed,
            "data_wait": min(1.0, (waited - self._mark_wait) / elapsed),
            "core_seconds": core_seconds,
            "skipped_steps": pl_module.counts["skipped_steps"],
            "bad_samples": pl_module.counts["bad_samples"],
        }
        self._mark, self._mark_step, self._mark_wait = now, step, waited
        return pace

    def leave_out(self, seconds: float) -> None:
        """Time since the last line that did not go into steps: it would make them look slow."""
        self._mark += seconds

    def _core_seconds(self, pl_module: Any) -> float:
        """Processor time of the run, of all processes, which all ask."""
        return self._core_seconds_before + float(
            pl_module.summed(torch.tensor(self._cpu_seconds() - self._cpu_started))
        )

    def _cpu_seconds(self) -> float:
        """Processor time of this process and its loader workers: what a busy neighbor does not change."""
        family = [self._process, *self._process.children(recursive=True)]
        return sum(times.user + times.system for times in (member.cpu_times() for member in family))

    def write(self, pl_module: Any, values: dict[str, float]) -> None:
        """One line of metrics.jsonl at this step, the same in TensorBoard, and the bar's text."""
        head = self._head(pl_module)
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self.run.append(METRICS, [json.dumps(head | finite)])
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, pl_module.step)
        self._show(pl_module, head | values)

    def _head(self, pl_module: Any) -> dict[str, float]:
        """Of a line; the clock goes on where the run was left."""
        seconds = self._seconds_before + time.perf_counter() - self._started
        return {"step": pl_module.step, "epoch": pl_module.plan.epoch(pl_module.step), "seconds": seconds}

    def _write_audit(self, step: int, epoch: Epoch) -> None:
        """One line an epoch, so that anybody can see that it showed every sample exactly once."""
        self.run.append(METRICS, [json.dumps({"step": step, **epoch.line()})])
        if epoch.keys != epoch.expected:
            log.warning(f"epoch {epoch.epoch} did not show every sample exactly once: please report this")

    def _show(self, pl_module: Any, line: dict[str, float]) -> None:
        parts = [f"epoch {line['epoch']:.1f}/{pl_module.plan.epochs:g}"]
        parts += [f"{name} {line[name]:.4f}" for name in _TOLD if name in line]
        if "images_per_second" in line:
            parts += [f"{line['images_per_second']:,.0f} images/s", f"data wait {line['data_wait']:.0%}"]
        if self._bar:
            self._bar.update(self._task, note="  ".join(parts))
        elif line["seconds"] - self._line_at > SECONDS_BETWEEN_LINES or line["step"] == pl_module.plan.steps:
            self._line_at = line["seconds"]
            log.info(f"step {line['step']}/{pl_module.plan.steps}  " + "  ".join(parts))

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar:
            self._bar.stop()
            self._bar = None
        if hasattr(self, "_tensorboard"):
            self._tensorboard.close()
        sys.stdout.flush()


def _bar() -> Progress:
    columns = [bar(), TextColumn("{task.completed}/{task.total} steps"), TimeRemainingColumn()]
    note = TextColumn("{task.fields[note]}", table_column=Column())  # the one that is wrapped where the line is short
    return Progress(*columns, note, console=console)
