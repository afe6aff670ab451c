"""Objectives side by side: the same shards, encoder and images, minutes or operations, then all judged alike."""

import json
import logging
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from mae_kit.commands.report import report
from mae_kit.comparison.copies import with_copies
from mae_kit.comparison.entries import must_be_trainable, stages
from mae_kit.comparison.ledger import complete, must_be_folder, recorded
from mae_kit.comparison.length import known_length, length
from mae_kit.comparison.plan import Plan, read_plan
from mae_kit.comparison.process import stoppable
from mae_kit.comparison.results import Records, summary
from mae_kit.console import console
from mae_kit.durable import replace_text
from mae_kit.errors import UserError
from mae_kit.evaluation.seeds import need_scipy, with_interval
from mae_kit.reports.comparison import (
    COST_HEADINGS,
    FINETUNED,
    SCORE,
    UNLIKE,
    alike,
    cost_cells,
    said_alike,
    said_of_scratch,
)
from mae_kit.training.lock import alone

log = logging.getLogger(__name__)

RESULTS = "compare.json"
SHOWN = (FINETUNED, "probe", "knn", "fewshot 10")  # in the terminal's table; the page has all


def compare(config: Path, out: Path = Path("comparison")) -> dict[str, Any]:
    """Train a list of objectives on the same images, equally long, and judge all alike, over several seeds.

    Every entry is pretrained, fine-tuned and evaluated frozen, each step in a process of its own, which is a verb as
    the command line would call it. An entry that fails is shown as failed and does not stop the others. The same
    command again goes on where an earlier one stopped, repeats nothing that is done, and tries again what has failed.

    Args:
        config: A YAML file, see recipes/compare: the shards, the length of every pretraining in images_seen, minutes or
            flops, the seeds, `overrides` of every pretraining, the recipe that fine-tunes them all, and the entries by
            name. An entry is `{config: RECIPE}`, with null for a training from scratch, may have `overrides` of the
            recipe's keys, as its `finetune` another recipe or overrides than the others, and as `against` the entry
            that it is compared with, in place of the first.
        out: Folder for all of it: runs, compare.json, report.html, and the recipes as they were at the beginning.

    Returns:
        What all pretrainings had alike, and for each entry its scores with mean, 95% interval and the value of each
        seed, the same of the differences to the entry it is compared with, what its pretraining cost (images, seconds,
        operations) and its failures, and of all entries how many steps have `failed`; the folder and the page.

    Raises:
        UserError: The file does not make sense, the folder is a file or holds a comparison with other settings, or
            another process is at work there. All of it is asked before any work.
    """
    need_scipy()
    must_be_folder(out)
    plan = read_plan(config)
    must_be_trainable(plan, out)
    with alone(out), stoppable():
        _must_be_of(plan, out)
        rows = _follow_all(plan, with_copies(plan, out), out)
    console.print(_scores(rows))
    console.print(_differences(rows))
    console.print(_costs(rows, said_alike(plan.budget._asdict())))
    if not alike(rows):
        log.warning(UNLIKE)
    if told := said_of_scratch(rows):
        log.info(told)
    failures = [(row["name"], failure) for row in rows for failure in row["failures"]]
    for name, failure in failures:
        log.warning(f"{name}, seed {failure['seed']}: {failure['verb']} FAILED: {failure['error']}")
    return {"out": str(out), "entries": rows, "failed": len(failures), **_common(plan), **report(out)}


def _common(plan: Plan) -> dict[str, Any]:
    """What all entries have alike."""
    return {"budget": plan.budget._asdict(), "prints": plan.prints}


def _must_be_of(plan: Plan, out: Path) -> None:
    """Refuse to write over the results of another comparison; entries and seeds may come and go."""
    path = out / RESULTS
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    other = [name for name, now in _common(plan).items() if before.get(name, now) != now]
    if other:
        what = " and ".join({"budget": "another length", "prints": "other images"}[name] for name in other)
        raise UserError("compare.of", f"{out} holds a comparison of {what}", "choose another --out")


def _follow_all(plan: Plan, kept: Plan, out: Path) -> list[dict[str, Any]]:
    """All stages of all entries, a seed after the other; a row for each entry.

    Args:
        plan: Of the comparison, as it is told.
        kept: The same with copies of its recipes, as it is done.
        out: Folder of the comparison.
    """
    seeds = range(plan.seeds)
    found = {name: {seed: _done(kept, name, seed, out) for seed in seeds} for name in plan.entries}
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        for name in plan.entries:
            found[name][seed] = _follow(kept, name, seed, out)
            rows = summary(plan, found, out)
            replace_text(out / RESULTS, json.dumps(_common(plan) | {"entries": rows}, indent=2))
    return rows


def _done(plan: Plan, name: str, seed: int, out: Path) -> Records:
    """What an earlier call has found, which must have been begun with the same settings: asked before any work."""
    images = known_length(plan, name, out)
    if images is None:
        return {}
    records = {stage.verb: recorded(stage) for stage in stages(plan, name, images, seed, out)}
    return {verb: record for verb, record in records.items() if record.keys() & {"result", "error"}}


def _follow(plan: Plan, name: str, seed: int, out: Path) -> Records:
    """All stages of one entry and seed; without what the first one makes there is nothing to go on with."""
    measured = length(plan, name, out)
    if "error" in measured:
        return {"length": measured}
    first, *others = stages(plan, name, measured["result"]["images"], seed, out)
    made = complete(first)
    records = {} if "error" in made else {stage.verb: complete(stage) for stage in others}
    return {first.verb: made} | records


def _scores(rows: list[dict[str, Any]]) -> Table:
    title = f"{SCORE}, in %: mean over the seeds [its 95% interval]"
    return _by_measure(title, rows, "scores", {"entry": "name"})


def _differences(rows: list[dict[str, Any]]) -> Table:
    title = "Differences, taken seed by seed"
    return _by_measure(title, rows, "differences", {"entry": "name", "against": "against"}, "+")


def _by_measure(title: str, rows: list[dict[str, Any]], what: str, told: dict[str, str], sign: str = "") -> Table:
    """A line for each measure and entry: what is `told` of the row by heading, then its number."""
    table = Table(title=escape(title), title_justify="left")
    for heading in ("", *told):
        table.add_column(heading)
    table.add_column(what.removesuffix("s"), justify="right")
    for measure in SHOWN:
        known = [row for row in rows if measure in row[what]]
        for row in known:
            cells = (*(row[key] for key in told.values()), with_interval(row[what][measure], sign))
            table.add_row(measure if row is known[0] else "", *map(escape, cells), end_section=row is known[-1])
    return table


def _costs(rows: list[dict[str, Any]], told: str) -> Table:
    """A line for each entry that was pretrained."""
    table = Table(title=escape(told), title_justify="left")
    table.add_column("entry")
    for heading in COST_HEADINGS:
        table.add_column(heading, justify="right")
    for row in rows:
        if row["pretraining"]:
            table.add_row(escape(row["name"]), *cost_cells(row["pretraining"]))
    return table
