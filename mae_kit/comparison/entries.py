"""Run the steps of all entries and seeds, and write what they have found."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mae_kit.comparison.orchestrate import Outcome, run_all
from mae_kit.comparison.plan import Comparison, Entry, Recipe
from mae_kit.comparison.results import Found, Outcomes, summary
from mae_kit.comparison.steps import entry_steps, trial
from mae_kit.errors import UserError
from mae_kit.files.durable import replace_text
from mae_kit.files.recipe_file import find_recipe
from mae_kit.files.run_folder import RunFolder
from mae_kit.files.run_records import read_record
from mae_kit.training.metrics import read_metrics, series


def shared(plan: Comparison) -> dict[str, Any]:
    """Return what all entries have in common."""
    return {"budget": plan.budget._asdict(), "prints": plan.prints}


def known_lengths(plan: Comparison, out: Path) -> dict[str, float]:
    """Return how many images each pretraining sees, as far as that is known; a budget of minutes has to be measured.

    Raises:
        UserError: The folder holds a comparison of other images or of another length; entries and seeds may be added.
    """
    before = read_record(RunFolder(out).comparison)
    for name, now in shared(plan).items():
        if before.get(name, now) != now:
            what = {"budget": "another length", "prints": "other images"}[name]
            raise UserError(f"compare.{name}", f"{out} holds a comparison of {what}", "choose another --out")
    measured = {name: images for name, images in before.get("lengths", {}).items() if images}
    scratch = {name: 0.0 for name, entry in plan.entries.items() if entry.config is None}
    fixed = dict.fromkeys(plan.entries, plan.budget.amount) if plan.budget.kind == "images_seen" else {}
    return measured | fixed | scratch


def run_entries(plan: Comparison, lengths: dict[str, float], out: Path) -> list[dict[str, Any]]:
    """Run what is left of all entries, seed after seed, and write the results after each; returns a row for each entry.

    Args:
        plan: The comparison.
        lengths: Images that each pretraining sees, as far as they are known.
        out: Folder of the comparison.
    """
    kept = _copies(plan, out)
    found: Found = {name: {} for name in plan.entries}
    for name in plan.entries.keys() & lengths.keys():
        for seed in range(plan.seeds):
            steps = entry_steps(kept, name, lengths[name], seed, out)
            found[name][seed] = {step.command: step.outcome() for step in steps if step.outcome()}
    for seed in range(plan.seeds):
        for name in plan.entries:
            _write(plan, found, lengths, out)
            found[name][seed] = _run_entry(kept, name, seed, lengths, out)
    return _write(plan, found, lengths, out)


def _write(plan: Comparison, found: Found, lengths: dict[str, float], out: Path) -> list[dict[str, Any]]:
    rows = summary(plan, found, out)
    replace_text(RunFolder(out).comparison, json.dumps(shared(plan) | {"lengths": lengths, "entries": rows}, indent=2))
    return rows


def _run_entry(plan: Comparison, name: str, seed: int, lengths: dict[str, float], out: Path) -> Outcomes:
    """Run all steps of one entry and seed; without an encoder there is nothing to fine-tune."""
    if name not in lengths and "error" in (outcome := _measure(plan, name, lengths, out)):
        return {"trial": outcome}
    first, *others = entry_steps(plan, name, lengths[name], seed, out)
    (outcome,) = run_all([first])
    if "error" in outcome:
        return {first.command: outcome}
    return {first.command: outcome} | dict(zip([step.command for step in others], run_all(others), strict=True))


def _measure(plan: Comparison, name: str, lengths: dict[str, float], out: Path) -> Outcome:
    """Run a short trial that says how many images the budget of minutes is; it is kept in `lengths`."""
    step = trial(plan, name, out)
    shutil.rmtree(step.run, ignore_errors=True)  # the speed of one that was interrupted means nothing
    (outcome,) = run_all([step])
    if "result" in outcome:
        lengths[name] = 60 * plan.budget.amount * images_per_second(step.run)
        shutil.rmtree(step.run)
    return outcome


def images_per_second(run: Path) -> float:
    """Return the speed of a trial after its first line of metrics."""
    _, speeds = series(read_metrics(run), "images_per_second")
    return float(1 / np.mean(1 / speeds[1:]))


def _copies(plan: Comparison, out: Path) -> Comparison:
    """Return the plan on copies of its recipes: editing one meanwhile changes nothing."""

    def copied(recipe: Any, kind: str, name: str) -> Any:
        if recipe.config is None:
            return recipe
        copy = out / "recipes" / f"{name}-{kind}.yaml"
        copy.parent.mkdir(parents=True, exist_ok=True)
        replace_text(copy, find_recipe(recipe.config, kind).read_text(encoding="utf-8"))
        return replace(recipe, config=str(copy))

    def entry(name: str) -> Entry:
        own = plan.entries[name].finetune or Recipe()
        tuning = copied(Recipe(plan.finetuning(name).config, own.overrides), "downstream", name)
        return replace(copied(plan.entries[name], "pretrain", name), finetune=tuning)

    return plan._replace(entries={name: entry(name) for name in plan.entries})
