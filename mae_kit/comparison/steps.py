"""The steps of an entry: their command lines."""

import json
from pathlib import Path
from typing import Any

import torch

from mae_kit.comparison.orchestrate import LOCAL, Step
from mae_kit.comparison.plan import BATCH_SIZE, EPOCHS, STEPS, WARM_UP, Comparison, Entry, Recipe, number, numbers
from mae_kit.encoders import create_encoder
from mae_kit.encoders.timm_models import pair
from mae_kit.errors import UserError
from mae_kit.files.run_folder import RunFolder

POINTS = 5  # of a curve of scores


def entry_steps(plan: Comparison, name: str, seed: int, out: Path) -> list[Step]:
    """Return the steps of an entry: pretraining, fine-tuning, evaluation.

    From scratch there is no pretraining, and the encoder that a classifier starts with is evaluated; models that are
    not one of our encoders, or start from published weights, are not evaluated. Neither are encoders on images that
    have neither classes nor masks nor numbers.

    Args:
        plan: The comparison.
        name: Name of the entry.
        seed: Seed of all steps.
        out: Folder of the comparison.
    """
    entry, recipe = plan.entries[name], plan.finetuning(name)
    run, tuned = (RunFolder(out).training(name, seed, command) for command in ("pretrain", "finetune"))
    if entry.config is None:
        tuning = _finetune(plan, recipe, "none", seed, tuned)
        return [tuning, *([_evaluate(plan, tuned, seed, True)] if _is_fresh_encoder(recipe) else [])]
    pretraining = _pretrain(plan, entry, seed, run)
    probed = [_evaluate(plan, run, seed)] if plan.probed else []
    return [pretraining, _finetune(plan, recipe, str(run), seed, tuned), *probed]


def _pretrain(plan: Comparison, entry: Entry, seed: int, run: Path) -> Step:
    """Return the pretraining; the learning-rate schedule is scaled to its images."""
    epochs, batches = plan.images_seen / plan.samples, plan.images_seen / number(entry, BATCH_SIZE)
    scale = epochs / number(entry, EPOCHS)
    length: dict[str, Any] = {EPOCHS: epochs, WARM_UP: scale * number(entry, WARM_UP)}
    if steps := numbers(entry, STEPS):
        length[STEPS] = [scale * step for step in steps]
    every = {"intervals.eval_every_n_steps": max(1, round(batches / POINTS))}
    own: dict[str, Any] = {"seed": seed} | ({"data.knn_shards": plan.val} if plan.labeled else {})
    places = {"data.path": plan.data} | ({"data.exclude": plan.exclude} if plan.exclude else {})
    return training("pretrain", entry.config, every | entry.changed | _rounded(length) | own, places, run)


def _rounded(value: Any) -> Any:
    """Round numbers, lists and mappings of them to six digits."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else float(f"{value:.6g}")


def _finetune(plan: Comparison, recipe: Recipe, encoder: str, seed: int, run: Path) -> Step:
    places = {"data.path": plan.train, "data.val": plan.val, "encoder": encoder}
    return training("finetune", recipe.config, recipe.changed | {"seed": seed}, places, run)


def _evaluate(plan: Comparison, run: Path, seed: int, untrained: bool = False) -> Step:
    words = ["evaluate", str(run), "--data", plan.train, "--val", plan.val, "--seed", str(seed)]
    words += ["--untrained"] if untrained else []
    folder = RunFolder(run)
    return Step(words, words, run, folder.untrained_evaluation if untrained else folder.evaluation)


def training(command: str, recipe: str | None, options: dict[str, Any], places: dict[str, Any], run: Path) -> Step:
    """Return a step of a command that trains.

    Args:
        command: `pretrain` or `finetune`.
        recipe: By path or name.
        options: Further settings by dotted key.
        places: Where it finds its data and encoder, by option; given on resuming too, as are options of `LOCAL`.
        run: Folder of the run.
    """
    places |= {key: value for key, value in options.items() if key in (*LOCAL, "data.knn_shards")}
    settings = _words({key: value for key, value in options.items() if key not in places})
    start = [command, str(recipe), *settings, *_words(places), "--run", str(run)]
    output = {"pretrain": RunFolder(run).model, "finetune": RunFolder(run).result}[command]
    return Step(start, [command, "--resume", str(run), *_words(places)], run, output)


def _words(values: dict[str, Any]) -> list[str]:
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    return [word for key, value in text.items() for word in ("--data" if key == "data.path" else f"--{key}", value)]


def _is_fresh_encoder(recipe: Recipe) -> bool:
    """Whether a fine-tuning trains a classifier that is one of our encoders with a head, all of it new."""
    settings = recipe.settings("downstream")
    name, size = settings.get("model.name"), settings.get("data.image_size")
    if not name or not size or settings.get("model.weights") or settings.get("task.class_path"):
        return False
    args = {key.removeprefix("model.args."): value for key, value in settings.items() if key.startswith("model.args.")}
    try:
        with torch.device("meta"):
            create_encoder(name, args, pair(size))
    except UserError:
        return False
    return True
