"""What the stages of all entries and seeds add up to."""

from pathlib import Path
from typing import Any

from mae_kit.comparison.cost import encoder_of, finetuning_cost, pretraining_cost
from mae_kit.evaluation.features import MEAN
from mae_kit.evaluation.intervals import headline
from mae_kit.evaluation.seeds import over_seeds
from mae_kit.reporting.entries import FINETUNED
from mae_kit.stages.ledger import Record

Records = dict[str, Record]
"""Of one entry and seed, by verb."""


def summary(found: dict[str, dict[int, Records]], out: Path) -> list[dict[str, Any]]:
    """A row for each entry: scores over the seeds, differences to the first entry seed by seed, cost, failures.

    Args:
        found: Records by entry and seed.
        out: Folder of the comparison.
    """
    scores = {name: {seed: measures(records) for seed, records in seeds.items()} for name, seeds in found.items()}
    first = next(iter(scores.values()))
    return [
        {
            "name": name,
            "encoder": encoder_of(out / f"{name}-seed0" / "pretrain"),
            "scores": _over_seeds(scores[name]),
            "differences": _differences(scores[name], first),
            "pretraining": _mean([pretraining_cost(out / f"{name}-seed{seed}" / "pretrain") for seed in seeds]),
            "finetuning": _mean([finetuning_cost(out / f"{name}-seed{seed}" / "finetune") for seed in seeds]),
            "failures": _failures(seeds),
        }
        for name, seeds in found.items()
    ]


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


def _differences(scores: dict[int, dict[str, float]], first: dict[int, dict[str, float]]) -> dict[str, Any]:
    """Taken seed by seed, where both have the measure."""
    both = {seed: (values, first.get(seed, {})) for seed, values in scores.items()}
    pairs = {seed: {n: ours[n] - theirs[n] for n in ours if n in theirs} for seed, (ours, theirs) in both.items()}
    return _over_seeds(pairs)


def _mean(costs: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Over the seeds that have come so far; of what is not known of each of them None."""
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
