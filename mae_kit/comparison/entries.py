"""What each entry goes through: the command line of every stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mae_kit.comparison.plan import BATCH_SIZE, EPOCHS, WARM_UP, Entry, Plan, Recipe, setting
from mae_kit.console import hush
from mae_kit.errors import UserError
from mae_kit.finetuning import finetune
from mae_kit.pretraining import pretrain
from mae_kit.recipes import find_recipe, read_recipe
from mae_kit.signature import must_fit
from mae_kit.stages.stage import Stage, digest

POINTS = 5  # of a curve of scores
_WITH_RECIPES: dict[str, tuple[Callable[..., Any], str]] = {
    "pretrain": (pretrain, "pretrain"),
    "finetune": (finetune, "downstream"),
}


def must_be_command_lines(plan: Plan, out: Path) -> None:
    """Refuse a key or a value that a verb would refuse when, hours later, its turn has come.

    Raises:
        UserError: There is one; it names the entry.
    """
    for name in plan.entries:
        given = (stage for stage in stages(plan, name, plan.samples, 0, out) if stage.verb in _WITH_RECIPES)
        for stage in given:
            verb, recipes = _WITH_RECIPES[stage.verb]
            try:
                with hush():
                    must_fit(verb, f"mae-kit {stage.verb}", stage.words[1:], recipes)
            except UserError as error:
                what, fix = error.args
                raise UserError(f"entries.{name}: {what}", fix) from error


def stages(plan: Plan, name: str, images: float, seed: int, out: Path) -> list[Stage]:
    """What an entry goes through: pretraining, fine-tuning, evaluation; from scratch the fine-tuning alone.

    Args:
        plan: Of the comparison.
        name: Of the entry.
        images: That its pretraining sees.
        seed: Of all of it.
        out: Folder of the comparison.
    """
    entry, folder = plan.entries[name], out / f"{name}-seed{seed}"
    if entry.config is None:
        return [_finetune(plan, entry, "none", seed, folder, ["--optimization.layer_decay", "1", *entry.words()])]
    encoder = str(folder / "pretrain")
    words = ["evaluate", encoder, "--train", plan.train, "--val", plan.val, "--seed", str(seed)]
    return [
        _pretrain(plan, entry, images, folder, ["--seed", str(seed)]),
        _finetune(plan, entry, encoder, seed, folder, []),
        Stage(words, "", _prints(plan, "train", "val"), folder),
    ]


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
    return _pretrain(plan, entry, steps * setting(entry, BATCH_SIZE), out / f"{name}-length", words)


def _pretrain(plan: Plan, entry: Entry, images: float, folder: Path, more: list[str]) -> Stage:
    assert entry.config is not None
    epochs = images / plan.samples
    warmup = epochs * setting(entry, WARM_UP) / setting(entry, EPOCHS)
    words = ["pretrain", "--config", entry.config, "--data.shards", plan.shards, "--data.knn_shards", plan.val]
    words += ["--data.without", plan.without] if plan.without else []
    words += ["--optimization.epochs", f"{epochs:.6g}", "--optimization.warmup_epochs", f"{warmup:.6g}"]
    words += ["--every.picture", str(max(1, round(images / setting(entry, BATCH_SIZE) / POINTS)))]
    words += [*entry.words(), *more, "--run", str(folder / "pretrain")]
    return Stage(words, _digest(entry.config, "pretrain"), _prints(plan, "images", "val"), folder)


def _finetune(plan: Plan, entry: Entry, encoder: str, seed: int, folder: Path, more: list[str]) -> Stage:
    own = entry.finetune or Recipe(None)
    config = own.config or plan.finetune.config
    assert config is not None
    words = ["finetune", "--config", config, "--data.train", plan.train, "--data.val", plan.val, "--encoder", encoder]
    words += [*plan.finetune.words(), *own.words(), *more, "--seed", str(seed), "--run", str(folder / "finetune")]
    return Stage(words, _digest(config, "downstream"), _prints(plan, "train", "val"), folder)


def _digest(config: str, kind: str) -> str:
    return digest(read_recipe(find_recipe(config, kind)))


def _prints(plan: Plan, *names: str) -> dict[str, str]:
    return {name: plan.prints[name] for name in names}
