"""Evaluation by training: an attentive probe, and fine-tuning of the whole encoder."""

import math
from pathlib import Path
from typing import Any

from mae_kit.classes.own_code import find_class
from mae_kit.comparison.orchestrate import Outcome, Step, run_all
from mae_kit.comparison.steps import training
from mae_kit.data.remote.filesystem import Place
from mae_kit.evaluation.bootstrap import TOP1, Score, headline, score_fraction
from mae_kit.evaluation.known import digest
from mae_kit.files.recipe_file import find_recipe, read_recipe
from mae_kit.tasks.classification import Classification
from mae_kit.weights.native import save_encoder
from mae_kit.weights.recognize import is_encoder

ATTENTIVE, WHOLE = "attentive", "finetune"
_FROZEN: dict[str, Any] = {"blocks": 0}
_POOLED = {"model.args": {"global_pool": "map"}}

Trainings = dict[str, tuple[str, dict[str, Any]]]
"""Recipe and overrides of a fine-tuning by method: `attentive`, `finetune`."""


def plan_trainings(attentive: str | None, finetune: str | None) -> Trainings:
    """Return the trainings that are asked for.

    Args:
        attentive: Recipe of the attentive probe.
        finetune: Recipe of the fine-tuning.

    Raises:
        UserError: A recipe does not exist.
    """
    asked: Trainings = {ATTENTIVE: (attentive, _probe(attentive))} if attentive else {}
    asked |= {WHOLE: (finetune, {})} if finetune else {}
    for recipe, _ in asked.values():
        find_recipe(recipe, "downstream")
    return asked


def _probe(recipe: str) -> dict[str, Any]:
    """What makes a recipe an attentive probe: the encoder is frozen, and its tokens are pooled by attention where the
    head does not take all of them, as those of segmentation and detection do.
    """
    task = read_recipe(find_recipe(recipe, "downstream")).get("task")
    kind: Any = find_class(task["class_path"]) if task else Classification
    return _FROZEN | (_POOLED if kind.pooled else {})


def training_steps(
    trainings: Trainings,
    encoder: Any,
    given: Path | None,
    train: Place,
    val: Place,
    prints: dict[str, str],
    seed: int,
    folder: Path,
) -> dict[str, Step]:
    """Return the steps of trainings; their runs are named after all that determines them, so that none is mixed up.

    Args:
        trainings: By method.
        encoder: The encoder that is evaluated, as `load_encoder` returns it.
        given: Where the user has it; None if it was made here. Unless it is in our format, it is saved below `folder`.
        train: Labeled shards to train on.
        val: Labeled shards to score on.
        prints: Fingerprints of the encoder and of these two.
        seed: Of weights, order and augmentation.
        folder: Holds a folder for each training.
    """
    path = given if given and is_encoder(given) else folder / f"encoder-{digest(prints)[:8]}"
    if path != given:
        path.mkdir(parents=True, exist_ok=True)
        save_encoder(path, encoder.model.state_dict(), encoder.pretrained_cfg)
    common = {"model.name": encoder.name, "seed": seed}
    places = {"data.path": str(train), "data.val": str(val), "encoder": str(path)}
    steps = {}
    for method, (recipe, changed) in trainings.items():
        settings = changed | common
        about = [read_recipe(find_recipe(recipe, "downstream")), settings, prints]
        run = folder / f"{method}-{digest(about)[:8]}"
        steps[method] = training("finetune", recipe, settings, places, run)
    return steps


def train_all(steps: dict[str, Step]) -> list[dict[str, Any]]:
    """Run what is left of each training; one that fails does not stop the others.

    Returns:
        The `method` of each with its `top1`, `low` and `high` (0 to 1), or its `map`, whose interval does not follow
        from it, and its `macro_f1`; or its `error`.

    Raises:
        SystemExit: A signal stopped it.
    """
    outcomes = run_all(list(steps.values()))
    return [{"method": method, **_scored(outcome)} for method, outcome in zip(steps, outcomes, strict=True)]


def _scored(outcome: Outcome) -> dict[str, Any]:
    if "error" in outcome:
        return outcome
    result = outcome["result"]
    metric, value = headline(result)
    found = score_fraction(value, result["samples"]) if metric == TOP1 else Score(metric, value)
    return found._replace(macro_f1=result.get("macro_f1", math.nan)).record()
