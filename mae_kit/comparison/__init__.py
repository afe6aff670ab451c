"""Objectives side by side: the same shards, encoder and images seen, then all judged alike."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from mae_kit.comparison.ledger import complete
from mae_kit.comparison.plan import Plan, read_plan, stages
from mae_kit.comparison.results import FINETUNED, Records, summary
from mae_kit.console import console, is_hushed, say
from mae_kit.durable import replace_text
from mae_kit.evaluation.seeds import need_scipy
from mae_kit.reporting import report
from mae_kit.reporting.entries import SCORE, UNLIKE, alike

SHOWN = (FINETUNED, "probe", "knn", "fewshot 10")  # in the terminal's table; the page has all


def compare(config: Path, out: Path = Path("comparison")) -> dict[str, Any]:
    """Train a list of objectives on the same images for the same time, and judge all alike, over several seeds.

    Every entry is pretrained, fine-tuned and evaluated frozen, each step in a process of its own, which is a verb as
    the command line would call it. An entry that fails is shown as failed and does not stop the others. The same
    command again goes on where an earlier one stopped, repeats nothing that is done, and tries again what has failed.

    Args:
        config: A YAML file, see recipes/compare: the shards, the length in images_seen, the seeds, the entries with
            their recipes, and the recipe that fine-tunes them all.
        out: Folder for all of it: runs, compare.json and report.html.

    Returns:
        For each entry its scores with mean, 95% interval and the value of each seed, the same of the differences to
        the first entry, what its pretraining cost and its failures; the folder and the page.

    Raises:
        UserError: The file does not make sense, or the folder holds a comparison with other settings.
    """
    need_scipy()
    plan = read_plan(config)
    found: dict[str, dict[int, Records]] = {name: {} for name in plan.entries}
    with _stoppable():
        for seed in range(plan.seeds):
            for name in plan.entries:
                found[name][seed] = _follow(plan, name, seed, out)
                rows = summary(found, out)
                replace_text(out / "compare.json", json.dumps({"entries": rows}, indent=2))
    if not is_hushed():
        console.print(_table(rows))
    if not alike(rows):
        say(UNLIKE)
    for row in rows:
        for failure in row["failures"]:
            say(f"{row['name']}, seed {failure['seed']}: {failure['verb']} FAILED: {failure['error']}")
    return {"out": str(out), "entries": rows, **report(out)}


def _follow(plan: Plan, name: str, seed: int, out: Path) -> Records:
    """All stages of one entry and seed; without an encoder there is nothing to go on with."""
    records: Records = {}
    for stage in stages(plan, name, seed, out):
        records[stage.verb] = complete(stage)
        if "error" in records.get("pretrain", {}):
            break
    return records


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM ends this process as Ctrl-C does: the training under way is told, and saves what it has."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _table(rows: list[dict[str, Any]]) -> Table:
    """A line for each measure and entry."""
    table = Table(title=escape(f"{SCORE}, in %: mean over the seeds [its 95% interval]"), title_justify="left")
    for heading in ("", "entry"):
        table.add_column(heading)
    for heading in ("score", f"against {rows[0]['name']}"):
        table.add_column(escape(heading), justify="right")
    for measure in (name for name in SHOWN if any(name in row["scores"] for row in rows)):
        known = [row for row in rows if measure in row["scores"]]
        for row in known:
            cells = (_percent(row["scores"][measure]), _percent(row["differences"].get(measure), "+"))
            beside = cells if row is not rows[0] else (cells[0], "")
            name = measure if row is known[0] else ""
            table.add_row(name, *map(escape, (row["name"], *beside)), end_section=row is known[-1])
    return table


def _percent(score: dict[str, Any] | None, sign: str = "") -> str:
    if score is None:
        return ""
    mean = f"{100 * score['mean']:{sign}.1f}"
    if score["low"] is None:
        return mean
    return f"{mean} [{100 * score['low']:{sign}.1f}, {100 * score['high']:{sign}.1f}]"
