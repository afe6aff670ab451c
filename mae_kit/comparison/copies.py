"""The recipes of a comparison as they were when it began: meanwhile the user may change them for something else."""

from dataclasses import replace
from pathlib import Path

from mae_kit.comparison.plan import Entry, Plan, Recipe
from mae_kit.comparison.stage import digest
from mae_kit.durable import replace_text
from mae_kit.recipe_file import find_recipe, read_recipe


def with_copies(plan: Plan, out: Path) -> Plan:
    """The plan with a copy in place of each recipe, under a name that tells what it says.

    Args:
        plan: Of the comparison.
        out: Folder of the comparison.
    """
    entries = {name: _of_entry(entry, out) for name, entry in plan.entries.items()}
    return plan._replace(entries=entries, finetune=_of_classifier(plan.finetune, out))


def _of_entry(entry: Entry, out: Path) -> Entry:
    tuned = _of_classifier(entry.finetune, out) if entry.finetune else None
    return replace(entry, config=_copy(entry.config, "pretrain", out), finetune=tuned)


def _of_classifier(recipe: Recipe, out: Path) -> Recipe:
    return replace(recipe, config=_copy(recipe.config, "downstream", out))


def _copy(config: str | None, kind: str, out: Path) -> str | None:
    if config is None:
        return None
    file = find_recipe(config, kind)
    copy = out / "recipes" / f"{file.stem}-{digest(read_recipe(file))}.yaml"
    copy.parent.mkdir(parents=True, exist_ok=True)
    replace_text(copy, file.read_text(encoding="utf-8"))
    return str(copy)
