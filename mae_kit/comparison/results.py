"""The table of a comparison: means and intervals over seeds, paired differences, costs, failures."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mae_kit.comparison.cost import encoder_of, finetuning_cost, pretraining_cost
from mae_kit.comparison.orchestrate import Outcome
from mae_kit.comparison.plan import Comparison
from mae_kit.evaluation.bootstrap import headline
from mae_kit.evaluation.features import MEAN, PATCHES
from mae_kit.evaluation.seeds import over_seeds
from mae_kit.files.run_folder import RunFolder
from mae_kit.reports.comparison import FINETUNED

Outcomes = dict[str, Outcome]
"""Outcomes of one entry and seed, by command."""
Found = dict[str, dict[int, Outcomes]]
"""Those of all entries and seeds."""


def summary(plan: Comparison, found: Found, out: Path) -> list[dict[str, Any]]:
    """Return a row for each entry: its recipes, scores over the seeds, paired differences, costs and failures.

    Args:
        plan: The comparison.
        found: What its steps have found so far.
        out: Folder of the comparison.
    """
    scores = {name: {seed: _scores(outcomes) for seed, outcomes in seeds.items()} for name, seeds in found.items()}
    return [
        _described(plan, name)
        | {
            "scores": _over_seeds(scores[name]),
            "differences": _differences(scores[name], scores[plan.against(name)]) if plan.against(name) != name else {},
            "failures": _failures(seeds),
        }
        | _costs(name, seeds, out)
        for name, seeds in found.items()
    ]


def _described(plan: Comparison, name: str) -> dict[str, Any]:
    entry = plan.entries[name]
    recipes = {"finetune": asdict(plan.finetuning(name))}
    if entry.config is not None:
        recipes = {"pretrain": {"config": entry.config, "overrides": entry.changed}} | recipes
    return {"name": name, "recipes": recipes, "against": plan.against(name), "seeds": plan.seeds}


def _scores(outcomes: Outcomes) -> dict[str, float]:
    """Return the headline score after fine-tuning, and those of frozen features of the last layer: by the mean of the
    patch tokens, or for masks by each of them.
    """
    values = {}
    if finetuned := outcomes.get("finetune", {}).get("result"):
        values[FINETUNED] = headline(finetuned)[1]
    frozen = outcomes.get("evaluate", {}).get("result", {}).get("scores", [])
    scores = {one["method"]: headline(one)[1] for one in frozen if one["token"] in (MEAN, PATCHES)}
    return values | {method: score for method, score in scores.items() if score is not None}


def _over_seeds(scores: dict[int, dict[str, float]]) -> dict[str, Any]:
    names = dict.fromkeys(name for values in scores.values() for name in values)
    return {name: over_seeds([one[name] for one in scores.values() if name in one])._asdict() for name in names}


def _differences(scores: dict[int, dict[str, float]], others: dict[int, dict[str, float]]) -> dict[str, Any]:
    """Return the differences between values of the same seed."""
    both = {seed: (values, others.get(seed, {})) for seed, values in scores.items()}
    pairs = {seed: {n: ours[n] - theirs[n] for n in ours if n in theirs} for seed, (ours, theirs) in both.items()}
    return _over_seeds(pairs)


def _costs(name: str, seeds: dict[int, Outcomes], out: Path) -> dict[str, Any]:
    """Return the encoder, and mean costs over the complete pretrainings (or, without one, over what has started)."""
    complete = [seed for seed, outcomes in seeds.items() if "result" in outcomes.get("pretrain", {})] or list(seeds)

    def runs(command: str, some: Iterable[int]) -> list[Path]:
        return [RunFolder(out).training(name, seed, command) for seed in some]

    return {
        "encoder": next(filter(None, (encoder_of(run) for run in runs("pretrain", seeds))), None),
        "pretraining": _mean([pretraining_cost(run) for run in runs("pretrain", complete)]),
        "finetuning": _mean([finetuning_cost(run) for run in runs("finetune", seeds)]),
    }


def _mean(costs: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Return the mean of each cost, None where one of them is unknown."""
    known = [cost for cost in costs if cost]
    return {name: _mean_of([cost[name] for cost in known]) for name in known[0]} if known else {}


def _mean_of(values: list[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if len(found) == len(values) else None


def _failures(seeds: dict[int, Outcomes]) -> list[dict[str, Any]]:
    return [
        {"seed": seed, "verb": command, "error": outcome["error"]}
        for seed, outcomes in seeds.items()
        for command, outcome in outcomes.items()
        if "error" in outcome
    ]
