"""What each entry goes through: the command line of every stage."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mae_kit.cli.parser import parse
from mae_kit.commands.finetune import finetune, must_be_in_bounds, normalization, open_labeled
from mae_kit.commands.pretrain import must_be_of_channels, pretrain
from mae_kit.comparison.ledger import has_result
from mae_kit.comparison.plan import BATCH_SIZE, EPOCHS, STEPS, WARM_UP, Entry, Plan, setting, settings
from mae_kit.comparison.recipe_weights import weights_prints
from mae_kit.comparison.stage import Stage
from mae_kit.console import warnings_only
from mae_kit.data.transforms.augment import IMAGENET_MEAN, FinetuneAugment, PretrainAugment
from mae_kit.encoders import create_encoder
from mae_kit.encoders.timm_models import pair
from mae_kit.errors import UserError
from mae_kit.tasks.classifier import Classifier, ModelSpec, build_classifier, go_on_predicting
from mae_kit.training.freezing import freeze_below
from mae_kit.training.samples import open_stream
from mae_kit.weights.initialize import fitting

POINTS = 5  # of a curve of scores
CLASSES = 2  # of a model that is built for a look
_SHARDS = {  # told apart by their fingerprints
    "pretrain": ("--data.path", "--data.knn_shards"),
    "finetune": ("--data.path", "--data.val"),
    "evaluate": ("--train", "--val"),
}


def must_be_trainable(plan: Plan, out: Path) -> None:
    """Refuse a key, a value, a model or images that a verb would refuse when, hours later, its turn has come.

    An entry that is done is not asked: what it read, as weights or a tokenizer, may be gone.

    Raises:
        UserError: There is one; it names the entry.
    """
    for name in plan.entries:
        try:
            with warnings_only():
                ahead = [stages(plan, name, plan.samples, seed, out) for seed in range(plan.seeds)]
                if not all(has_result(stage) for of_a_seed in ahead for stage in of_a_seed):
                    _must_go({stage.verb: stage.words for stage in ahead[0]})
        except UserError as error:
            raise UserError(error.key, f"entries.{name}: {error.problem}", error.fix) from error


def _must_go(words: dict[str, list[str]]) -> None:
    """The images of each stage, and its model without memory; the encoder is one that the fine-tuning takes."""
    asked = _pretraining(words["pretrain"]) if "pretrain" in words else None
    with torch.device("meta"):
        tuned = parse(finetune, "mae-kit finetune", words["finetune"][1:], "downstream")
        built = _classifier(tuned, asked)
        if tuned["blocks"] is not None:
            freeze_below(built.model, tuned["blocks"])
    if tuned["generative"]:
        go_on_predicting(built.model)
    must_be_in_bounds(*(tuned[name] for name in ("drop_path", "ema", "generative", "balance")))
    data, optimization, augmentation = tuned["data"], tuned["optimization"], tuned["augmentation"]
    FinetuneAugment(*normalization(data, built), CLASSES, **asdict(augmentation))
    optimization.peak(data.batch_size)
    augmentation.must_mix(open_labeled(data, optimization, tuned["machine"], tuned["seed"])[0].at_once)


def _pretraining(words: list[str]) -> dict[str, Any]:
    """Its arguments, which can work, also with the weights that it starts from; what has begun has read them."""
    with torch.device("meta"):
        asked = parse(pretrain, "mae-kit pretrain", words[1:], "pretrain")
    data, optimization = asked["data"], asked["optimization"]
    must_be_of_channels(data, asked["objective"].encoder.channels)
    PretrainAugment(data.mean, data.std, data.flip, data.color_jitter)
    optimization.peak(data.batch_size)
    if asked["init"] and not asked["run"].exists():
        fitting(asked["init"], asked["objective"])
    open_stream(data.path, data, optimization, asked["machine"], asked["seed"])
    return asked


def _classifier(tuned: dict[str, Any], asked: dict[str, Any] | None) -> Classifier:
    """Of a fine-tuning's arguments, and of the pretraining's where there is one."""
    spec, data = tuned["model"], tuned["data"]
    if asked is None:
        channels = len(data.mean or IMAGENET_MEAN)
        return build_classifier(spec, CLASSES, None, tuned["drop_path"], pair(data.image_size), channels)
    encoder, before = asked["objective"].encoder, asked["data"]
    if spec and spec.name != encoder.name:
        what = f"its encoder is a {encoder.name}, and the fine-tuning is of a {spec.name}"
        raise UserError(
            "entries.classifier", what, "give this entry a `finetune: {config: RECIPE}` of its own, see recipes/compare"
        )
    form = tuned["drop_path"], pair(data.image_size), len(data.mean or before.mean)
    return build_classifier(spec, CLASSES, encoder, *form)._replace(mean=before.mean, std=before.std)


def stages(plan: Plan, name: str, images: float, seed: int, out: Path) -> list[Stage]:
    """What an entry goes through: pretraining, fine-tuning, evaluation.

    From scratch there is no pretraining, and what is judged frozen is the encoder that the fine-tuning began with.
    Nothing is where that is no encoder of ours, as a ConvNeXt, or begins with published weights.

    Args:
        plan: Of the comparison.
        name: Of the entry.
        images: That its pretraining sees.
        seed: Of all of it.
        out: Folder of the comparison.

    Raises:
        UserError: A recipe has keys or values that a verb refuses.
    """
    entry, folder = plan.entries[name], out / f"{name}-seed{seed}"
    if entry.config is None:
        tuning = _finetune(plan, name, "none", seed, folder)
        judged = (
            [_evaluate(plan, tuning.run, seed, ["--untrained"])] if _begins_with_fresh_encoder(tuning.words) else []
        )
        return [tuning, *judged]
    training = _pretrain(plan, entry, images, folder, ["--seed", str(seed)])
    return [training, _finetune(plan, name, str(training.run), seed, folder), _evaluate(plan, training.run, seed)]


def trial(plan: Plan, name: str, steps: int, words: list[str], out: Path) -> Stage:
    """A pretraining of so many steps, which says how long an entry's own will be.

    Args:
        plan: Of the comparison.
        name: Of the entry.
        steps: At the entry's batch size.
        words: Further ones, on the command line.
        out: Folder of the comparison.
    """
    entry = plan.entries[name]
    return _pretrain(plan, entry, steps * setting(entry, BATCH_SIZE), out / f"{name}-{plan.budget.kind}", words)


def _pretrain(plan: Plan, entry: Entry, images: float, folder: Path, more: list[str]) -> Stage:
    assert entry.config is not None
    words = ["pretrain", "--config", entry.config, "--data.path", plan.shards, "--data.knn_shards", plan.val]
    words += ["--data.exclude", plan.without] if plan.without else []
    epochs = images / plan.samples
    share = epochs / setting(entry, EPOCHS)
    words += ["--optimization.epochs", f"{epochs:.6g}"]
    words += ["--optimization.warmup_epochs", f"{share * setting(entry, WARM_UP):.6g}"]
    words += ["--intervals.eval_every_n_steps", str(max(1, round(images / setting(entry, BATCH_SIZE) / POINTS)))]
    words += entry.words()
    if steps := ", ".join(f"{share * step:.6g}" for step in settings(entry, STEPS)):
        words += ["--optimization.steps", f"[{steps}]"]
    words += [*more, "--run", str(folder / "pretrain")]
    prints = _prints(plan, "images", "val") | weights_prints(entry, "pretrain")
    return Stage(words, prints, folder, _SHARDS["pretrain"])


def _finetune(plan: Plan, name: str, encoder: str, seed: int, folder: Path) -> Stage:
    recipe = plan.tuning(name)
    assert recipe.config is not None
    words = ["finetune", "--config", recipe.config, "--data.path", plan.train, "--data.val", plan.val]
    words += ["--encoder", encoder, *recipe.words(), "--seed", str(seed), "--run", str(folder / "finetune")]
    prints = _prints(plan, "train", "val") | weights_prints(recipe, "downstream")
    return Stage(words, prints, folder, _SHARDS["finetune"])


def _evaluate(plan: Plan, run: Path, seed: int, more: Sequence[str] = ()) -> Stage:
    words = ["evaluate", str(run), "--train", plan.train, "--val", plan.val, "--seed", str(seed), *more]
    return Stage(words, _prints(plan, "train", "val"), run.parent, _SHARDS["evaluate"])


def _begins_with_fresh_encoder(words: list[str]) -> bool:
    """Whether the classifier of a fine-tuning is an encoder of ours with a head, all of it new."""
    with torch.device("meta"):
        tuned = parse(finetune, "mae-kit finetune", words[1:], "downstream")
        spec: ModelSpec | None = tuned["model"]
        if spec is None or spec.weights:
            return False
        try:
            create_encoder(spec.name, spec.args, pair(tuned["data"].image_size))
        except UserError:
            return False
    return True


def _prints(plan: Plan, *names: str) -> dict[str, str]:
    return {name: plan.prints[name] for name in names}
