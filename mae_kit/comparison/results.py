"""What the stages of all entries and seeds add up to."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from mae_kit.comparison.cost import encoder_of, finetuning_cost, pretraining_cost
from mae_kit.comparison.ledger import Record
from mae_kit.comparison.plan import Plan
from mae_kit.evaluation.bootstrap import headline
from mae_kit.evaluation.features import MEAN
from mae_kit.evaluation.seeds import over_seeds
from mae_kit.reports.comparison import FINETUNED

Records = dict[str, Record]
"""Of one entry and seed, by verb."""


def summary(plan: Plan, found: dict[str, dict[int, Records]], out: Path) -> list[dict[str, Any]]:
    """A row for each entry: what it is, scores over the seeds, differences seed by seed, cost, failures.

    Args:
        plan: Of the comparison.
        found: Records by entry and seed.
        out: Folder of the comparison.
    """
    scores = {name: {seed: measures(records) for seed, records in seeds.items()} for name, seeds in found.items()}
    return [
        _told(plan, name) | _measured(name, seeds, scores, plan.against(name), out) for name, seeds in found.items()
    ]


def _told(plan: Plan, name: str) -> dict[str, Any]:
    """What the file says of an entry."""
    entry = plan.entries[name]
    recipes = {"finetune": asdict(plan.tuning(name))}
    if entry.config is not None:
        recipes = {"pretrain": {"config": entry.config, "overrides": entry.changed}} | recipes
    return {"name": name, "recipes": recipes, "against": plan.against(name), "seeds": plan.seeds}


def _measured(
    name: str, seeds: dict[int, Records], scores: dict[str, dict[int, dict[str, float]]], against: str, out: Path
) -> dict[str, Any]:
    runs = {seed: out / f"{name}-seed{seed}" for seed in seeds}
    ended = [seed for seed, records in seeds.items() if "result" in records.get("pretrain", {})] or list(seeds)
    return {
        "encoder": next(filter(None, (encoder_of(run / "pretrain") for run in runs.values())), None),
        "scores": _over_seeds(scores[name]),
        "differences": _differences(scores[name], scores[against]) if against != name else {},
        "pretraining": _mean([pretraining_cost(runs[seed] / "pretrain") for seed in ended]),
        "finetuning": _mean([finetuning_cost(run / "finetune") for run in runs.values()]),
        "failures": _failures(seeds),
    }


def measures(records: Records) -> dict[str, float]:
    """Top-1 by what was asked: fine-tuned, and of frozen features the mean of the patch tokens of the last layer.

    Mean average precision where images have any number of classes.
    """
    values = {}
    if finetuned := records.get("finetune", {}).get("result"):
        values[FINETUNED] = headline(finetuned)[1]
    frozen = records.get("evaluate", {}).get("result", {}).get("scores", [])
    scores = {one["method"]: headline(one)[1] for one in frozen if one["token"] == MEAN}
    return values | {method: score for method, score in scores.items() if score is not None}


def _over_seeds(scores: dict[int, dict[str, float]]) -> dict[str, Any]:
    names = dict.fromkeys(name for values in scores.values() for name in values)
    return {name: over_seeds([one[name] for one in scores.values() if name in one])._asdict() for name in names}


def _differences(scores: dict[int, dict[str, float]], others: dict[int, dict[str, float]]) -> dict[str, Any]:
    """Taken seed by seed, where both have the measure."""
    both = {seed: (values, others.get(seed, {})) for seed, values in scores.items()}
    pairs = {seed: {n: ours[n] - theirs[n] for n in ours if n in theirs} for seed, (ours, theirs) in both.items()}
    return _over_seeds(pairs)


def _mean(costs: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Over the seeds that have begun; of what is not known of each of them None."""
    known = [cost for cost in costs if cost]
    return {name: _mean_of([cost[name] for cost in known]) for name in known[0]} if known else {}


def _mean_of(values: list[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if len(found) == len(values) else None


def _failures(seeds: dict[int, Records]) -> list[dict[str, Any]]:
    return [
        {"seed": seed, "verb": verb, "error": record["error"]}
        for seed, records in seeds.items()
        for verb, record in records.items()
        if "error" in record
    ]
