"""Run the steps of all entries and seeds, and write what they have found."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from mae_kit.comparison.orchestrate import Step, run_all
from mae_kit.comparison.plan import Comparison, Entry, Recipe
from mae_kit.comparison.results import Found, Outcomes, summary
from mae_kit.comparison.steps import entry_steps
from mae_kit.errors import UserError
from mae_kit.files.durable import replace_text
from mae_kit.files.recipe_file import find_recipe
from mae_kit.files.run_folder import RunFolder
from mae_kit.files.run_records import read_record


def shared(plan: Comparison) -> dict[str, Any]:
    """Return what all entries have in common."""
    return {"images_seen": plan.images_seen, "prints": plan.prints}


def check_same_comparison(plan: Comparison, out: Path) -> None:
    """Refuse a folder that holds a comparison of other images or of another length; entries and seeds may be added.

    Raises:
        UserError: It does.
    """
    before = read_record(RunFolder(out).comparison)
    for name, now in shared(plan).items():
        if before.get(name, now) != now:
            what = {"images_seen": "another length", "prints": "other images"}[name]
            raise UserError(f"compare.{name}", f"{out} holds a comparison of {what}", "choose another --out")


def run_entries(plan: Comparison, out: Path) -> list[dict[str, Any]]:
    """Run what is left of all entries, seed after seed, and write the results after each; returns a row for each entry.

    Args:
        plan: The comparison.
        out: Folder of the comparison.
    """
    kept = _copies(plan, out)
    found: Found = {name: {} for name in plan.entries}
    for name in plan.entries:
        for seed in range(plan.seeds):
            steps = entry_steps(kept, name, seed, out)
            found[name][seed] = {step.command: step.outcome() for step in steps if step.outcome()}
    for seed in range(plan.seeds):
        for name in plan.entries:
            _write(plan, found, out)
            found[name][seed] = _run_steps(entry_steps(kept, name, seed, out))
    return _write(plan, found, out)


def _write(plan: Comparison, found: Found, out: Path) -> list[dict[str, Any]]:
    rows = summary(plan, found, out)
    replace_text(RunFolder(out).comparison, json.dumps(shared(plan) | {"entries": rows}, indent=2))
    return rows


def _run_steps(steps: list[Step]) -> Outcomes:
    """Run all steps of one entry and seed; without an encoder there is nothing to fine-tune."""
    first, *others = steps
    (outcome,) = run_all([first])
    if "error" in outcome:
        return {first.command: outcome}
    return {first.command: outcome} | dict(zip([step.command for step in others], run_all(others), strict=True))


def _copies(plan: Comparison, out: Path) -> Comparison:
    """Return the plan on copies of its recipes: editing one meanwhile changes nothing."""

    def copied(recipe: Any, kind: str, name: str) -> Any:
        if recipe.config is None:
            return recipe
        copy = RunFolder(out).recipe(name, kind)
        copy.parent.mkdir(parents=True, exist_ok=True)
        replace_text(copy, find_recipe(recipe.config, kind).read_text(encoding="utf-8"))
        return replace(recipe, config=str(copy))

    def entry(name: str) -> Entry:
        own = plan.entries[name].finetune or Recipe()
        tuning = copied(Recipe(plan.finetuning(name).config, own.overrides), "downstream", name)
        return replace(copied(plan.entries[name], "pretrain", name), finetune=tuning)

    return plan._replace(entries={name: entry(name) for name in plan.entries})
