"""How long each pretraining is, where its length follows from time or arithmetic that all have alike."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from mae_kit.cli.parser import parse
from mae_kit.commands.pretrain import pretrain
from mae_kit.comparison.cost import flops_per_image
from mae_kit.comparison.entries import trial
from mae_kit.comparison.ledger import Record, complete, recorded, run_stage
from mae_kit.comparison.plan import Plan
from mae_kit.comparison.process import Failed
from mae_kit.comparison.stage import Stage
from mae_kit.errors import UserError
from mae_kit.training.metrics import read_metrics, series

TRIAL_WARM_UP, TRIAL_STEPS = 8, 24  # of a trial; memory and prefetched batches make the first ones unlike the rest


def length(plan: Plan, name: str, out: Path) -> Record:
    """The record of an entry's length, the same for all its seeds: `result` has its `images`.

    What was measured is kept, so that a comparison that goes on keeps its lengths: the arithmetic of an image, or the
    images a second of a short trial, a real pretraining whose run is thrown away. Pictures, scores and checkpoints
    come on top of the time that is alike.

    Args:
        plan: Of the comparison.
        name: Of the entry.
        out: Folder of the comparison.

    Raises:
        UserError: It was measured with other settings.
        SystemExit: A signal stopped the trial.
    """
    if (images := _given(plan, name)) is not None:
        return {"result": {"images": images}}
    record = complete(_trial(plan, name, out), _count if plan.budget.kind == "flops" else _time)
    return record if "error" in record else record | {"result": record["result"] | {"images": _images(plan, record)}}


def known_length(plan: Plan, name: str, out: Path) -> float | None:
    """The images of an entry, as far as that is known without work.

    Raises:
        UserError: They were measured with other settings.
    """
    if (images := _given(plan, name)) is not None:
        return images
    record = recorded(_trial(plan, name, out))
    return _images(plan, record) if "result" in record else None


def _given(plan: Plan, name: str) -> float | None:
    if plan.entries[name].config is None:
        return 0
    return plan.budget.amount if plan.budget.kind == "images_seen" else None


def _images(plan: Plan, record: Record) -> float:
    """What the budget comes to, of what was measured."""
    (kind, amount), found = plan.budget, record["result"]
    return 60 * amount * found["images_per_second"] if kind == "minutes" else amount / found["flops_per_image"]


def _trial(plan: Plan, name: str, out: Path) -> Stage:
    """Nothing but steps."""
    never = str(TRIAL_STEPS)
    words = [
        "--intervals.log_every_n_steps",
        str(TRIAL_WARM_UP),
        "--intervals.checkpoint_every_n_steps",
        never,
        "--intervals.eval_every_n_steps",
        never,
    ]
    return trial(plan, name, TRIAL_STEPS, [*words, "--data.knn_shards", "null"], out)


def _count(stage: Stage, _: bool) -> dict[str, Any]:
    return {"flops_per_image": flops_per_image(_recipe(stage)["objective"])}


def _recipe(stage: Stage) -> dict[str, Any]:
    """What the command line builds."""
    try:
        return parse(pretrain, "mae-kit pretrain", stage.words[1:], "pretrain")
    except UserError as error:
        raise Failed(str(error)) from error


def _time(stage: Stage, _: bool) -> dict[str, Any]:
    """In one sitting: what is left of a trial that was stopped says nothing."""
    try:
        shutil.rmtree(stage.run, ignore_errors=True)
        run_stage(stage, False)
        return {"images_per_second": images_per_second(stage.run)}
    finally:
        shutil.rmtree(stage.run, ignore_errors=True)


def images_per_second(run: Path) -> float:
    """Of all steps after the first line of metrics, nothing but steps."""
    _, speeds = series(read_metrics(run), "images_per_second")
    return float(1 / np.mean(1 / speeds[1:]))
