"""Compare objectives: pretrain each equally long on the same images, then fine-tune and evaluate each the same way."""

import logging
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from mae_kit.cli.parser import parse
from mae_kit.commands import finetune as tuning
from mae_kit.commands import pretrain as pretraining
from mae_kit.commands.finetune import finetune
from mae_kit.commands.pretrain import config_of, pretrain
from mae_kit.commands.report import report
from mae_kit.comparison.entries import check_same_comparison, run_entries, shared
from mae_kit.comparison.orchestrate import Step, check_folder, check_same_settings
from mae_kit.comparison.plan import Comparison, read_comparison
from mae_kit.comparison.steps import entry_steps
from mae_kit.console import console, warnings_only
from mae_kit.errors import UserError
from mae_kit.evaluation.seeds import need_scipy, with_interval
from mae_kit.reports.comparison import (
    COST_HEADINGS,
    FINETUNED,
    SCORE,
    UNLIKE,
    cost_cells,
    describe_length,
    describe_scratch,
    have_same_encoder,
)
from mae_kit.training.lock import alone
from mae_kit.training.run import recipe_of
from mae_kit.weights.initialize import fitting

log = logging.getLogger(__name__)

SHOWN = (
    FINETUNED,
    "probe",
    "knn",
    "fewshot 10",
    "patch_probe",
    "patch_knn",
    "number_probe",
    "number_knn",
)  # in the table; the page has all


def compare(config: Path, out: Path = Path("comparison")) -> dict[str, Any]:
    """Compare objectives: same images, same length of pretraining, same evaluation, several seeds.

    Every entry is pretrained, fine-tuned for the task of the recipe, and evaluated frozen where images have classes,
    masks or numbers. Each step runs in a child process, and its command line is printed. An entry that fails is
    reported and does not stop the others. Repeating the command resumes the comparison: what is complete is skipped,
    what failed retried.

    Args:
        config: A YAML file such as those in recipes/compare: the data, the length of every pretraining run
            (images_seen), the seeds, `overrides` for every pretraining run, the fine-tuning recipe, and the entries by
            name. An entry is `{config: RECIPE}`, or `{config: null}` to train from scratch. It may have `overrides` of
            the recipe's settings, its own `finetune` recipe or overrides, and `against`, the entry it is compared with
            in place of the first.
        out: Folder for everything: runs, compare.json, report.html and copies of the recipes.

    Returns:
        The shared `images_seen` and fingerprints of the images, and for each entry its scores with mean, 95% interval
        and the value of each seed, the same of the paired differences to the entry it is compared with, what its
        pretraining cost (images, seconds, operations) and its failures; the number of steps that have `failed`; the
        folder and the report.

    Raises:
        UserError: The file is invalid, an entry cannot be trained, the folder is a file or holds a comparison with
            other settings, or another process is at work there; all before the first step.
    """
    need_scipy()
    check_folder(out)
    plan = read_comparison(config)
    check_same_comparison(plan, out)
    for name in plan.entries:
        check_entry(plan, name, out)
    with alone(out):
        rows = run_entries(plan, out)
    scores, differences = f"{SCORE}, in %: mean over the seeds [its 95% interval]", "Differences, taken seed by seed"
    console.print(_by_measure(scores, rows, "scores", {"entry": "name"}))
    console.print(_by_measure(differences, rows, "differences", {"entry": "name", "against": "against"}, "+"))
    console.print(_costs(rows, describe_length(plan.images_seen)))
    if not have_same_encoder(rows):
        log.warning(UNLIKE)
    if note := describe_scratch(rows):
        log.info(note)
    failures = [(row["name"], failure) for row in rows for failure in row["failures"]]
    for name, failure in failures:
        log.warning(f"{name}, seed {failure['seed']}: {failure['verb']} FAILED: {failure['error']}")
    return {"out": str(out), "entries": rows, "failed": len(failures), **shared(plan), **report(out)}


def check_entry(plan: Comparison, name: str, out: Path) -> None:
    """Refuse an entry that a command would refuse later, or that was started with other settings.

    The weights and tokenizers that a complete entry has read may be gone.
    """
    steps = [entry_steps(plan, name, seed, out) for seed in range(plan.seeds)]
    try:
        with warnings_only():
            asked = _dry_run(steps[0])
    except UserError as error:
        if all(step.outcome() for of_seed in steps for step in of_seed):
            return
        raise UserError(error.key, f"entries.{name}: {error.problem}", error.fix) from error
    for seed, of_seed in enumerate(steps):
        for step in of_seed:
            if step.command in asked:
                check_same_settings(step.run, asked[step.command] | {"seed": seed})


# Refusals before the first step ---------------------------------------------------------------------------------------


def _dry_run(steps: list[Step]) -> dict[str, dict[str, Any]]:
    """Return the config.yaml of each training of an entry, after all that its command would refuse."""
    words = {step.command: step.start for step in steps}
    configs, encoder = {}, None
    with torch.device("meta"):
        if "pretrain" in words:
            started = next(step.started for step in steps if step.command == "pretrain")
            asked = parse(pretrain, "mae-kit pretrain", words["pretrain"][1:], "pretrain")
            asked = pretraining.prepare(asked).arguments
            if asked["init"] and not started:  # one that has started has read its weights
                fitting(asked["init"], asked["objective"])
            encoder = asked["objective"].encoder
            encoder.pretrained_cfg = config_of(asked["objective"], asked["data"], 0)
            configs["pretrain"] = recipe_of(asked)
        tuned = parse(finetune, "mae-kit finetune", words["finetune"][1:], "downstream")
        if encoder is not None and tuned["model"] and tuned["model"].name != encoder.name:
            problem = f"its encoder is a {encoder.name}, and the fine-tuning is of a {tuned['model'].name}"
            raise UserError("entries.finetune", problem, "give this entry a `finetune: {config: RECIPE}` of its own")
        of_task = (tuned[name] for name in ("data", "optimization", "machine", "seed"))
        labeled = tuning.task_of(tuned).open(*of_task)
        job, _ = tuning.prepare(tuned, labeled, encoder)
    return configs | {"finetune": recipe_of(job.arguments)}


# Tables ---------------------------------------------------------------------------------------------------------------


def _by_measure(title: str, rows: list[dict[str, Any]], what: str, told: dict[str, str], sign: str = "") -> Table:
    """A line for each measure and entry: what is `told` of the row by heading, then its number."""
    table = Table(title=title, title_justify="left")
    for heading in ("", *told):
        table.add_column(heading)
    table.add_column(what.removesuffix("s"), justify="right")
    for measure in SHOWN:
        known = [row for row in rows if measure in row[what]]
        for row in known:
            cells = (*(row[key] for key in told.values()), with_interval(row[what][measure], sign))
            table.add_row(measure if row is known[0] else "", *cells, end_section=row is known[-1])
    return table


def _costs(rows: list[dict[str, Any]], told: str) -> Table:
    """A line for each entry that was pretrained."""
    table = Table(title=told, title_justify="left")
    table.add_column("entry")
    for heading in COST_HEADINGS:
        table.add_column(heading, justify="right")
    for row in rows:
        if row["pretraining"]:
            table.add_row(row["name"], *cost_cells(row["pretraining"]))
    return table
