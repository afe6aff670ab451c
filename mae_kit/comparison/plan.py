"""The file of a comparison: its entries, and what they have in common."""

import json
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mae_kit.cli.parser import parse
from mae_kit.data.index.exclusions import kept
from mae_kit.data.index.open import Index, open_index
from mae_kit.data.resolve import resolve, resolve_pair
from mae_kit.errors import UserError
from mae_kit.files.recipe_file import find_recipe, flat, read_recipe
from mae_kit.training.ranges import POSITIVE, check_ranges

EPOCHS, WARM_UP, STEPS = "optimization.epochs", "optimization.warmup_epochs", "optimization.steps"
BATCH_SIZE = "data.batch_size"
TOLERANCE = 0.05  # fraction of images_seen that rounding to whole batches may add or drop
_NAME = re.compile(r"\w[\w.+-]*")
_SETTING = re.compile(r"[A-Za-z]\w*(\.\w+)*")
_OPTIONS = ("help", "json", "print_config", "resume")  # of the command line, which no recipe has
_SHARED = ("config", "run", "seed")
_PRETRAINING = (*_SHARED, "data.path", "data.exclude", "data.knn_shards", EPOCHS, WARM_UP)
_FINETUNING = (*_SHARED, "data.path", "data.val", "encoder")


@dataclass(frozen=True)
class Recipe:
    """A recipe and its overrides.

    Attributes:
        config: The recipe, by path or name.
        overrides: Values by dotted key, as on the command line; none of those that the comparison sets.
    """

    config: str | None = None
    overrides: dict[str, Any] | None = field(default_factory=dict)

    @property
    def changed(self) -> dict[str, Any]:
        """The overrides, with underscores in their keys."""
        plain = json.loads(json.dumps(self.overrides or {}, default=vars))  # the parser makes objects of classes
        return {key.replace("-", "_"): value for key, value in plain.items()}

    def settings(self, kind: str) -> dict[str, Any]:
        """Return the values of the recipe and its overrides by dotted key; another model drops the recipe's arguments.

        Args:
            kind: The folder in which a recipe is found by its name.
        """
        own, changed = flat(read_recipe(find_recipe(self.config, kind)) if self.config else {}), flat(self.changed)
        if changed.get("model.name", own.get("model.name")) != own.get("model.name"):
            own = {key: value for key, value in own.items() if not key.startswith("model.args.")}
        return own | changed


@dataclass(frozen=True)
class Entry(Recipe):
    """A pretraining; `config: null` trains from scratch, and the overrides then belong to the fine-tuning.

    Attributes:
        finetune: Another fine-tuning recipe than the other entries have, or further overrides.
        against: The entry that this one is compared with; by default the first.
    """

    finetune: Recipe | None = None
    against: str | int | float | None = None  # YAML reads 0.75 as a number


_KEYS = tuple(one.name for one in fields(Entry))


class Comparison(NamedTuple):
    """A comparison.

    Attributes:
        data: Shards to pretrain on.
        train: Labeled shards to fine-tune on.
        val: Labeled shards to score on.
        samples: Number of images to pretrain on.
        images_seen: The length of every pretraining.
        entries: What is compared, by name.
        finetune: How encoders are fine-tuned; the recipe names the task that judges them.
        seeds: Trainings of each entry.
        exclude: List of samples that no pretraining sees.
        prints: Fingerprints of the `images` to pretrain on, of `train` and of `val`, labels included.
        labeled: Whether images to score on have classes, which a kNN score during pretraining takes.
        probed: Whether they have classes, masks or numbers, by which frozen features are scored.
    """

    data: str
    train: str
    val: str
    samples: int
    images_seen: int
    entries: dict[str, Entry]
    finetune: Recipe
    seeds: int
    exclude: str | None
    prints: dict[str, str]
    labeled: bool = True
    probed: bool = True

    def against(self, name: str) -> str:
        """Return the entry that this one is compared with."""
        own = self.entries[name].against
        return next(iter(self.entries)) if own is None else str(own)

    def finetuning(self, name: str) -> Recipe:
        """Return the fine-tuning of an entry; from scratch its layer decay is 1 unless the entry says otherwise.

        The recipe is the entry's, or the comparison's, or the one that the pretraining recipe names.

        Raises:
            UserError: There is none.
        """
        entry = self.entries[name]
        own, scratch = entry.finetune or Recipe(), entry.config is None
        config = own.config or self.finetune.config or (None if scratch else entry.settings("pretrain").get("finetune"))
        if config is None:
            fix = "add `finetune: {config: vit_tiny_64px}` to it"
            raise UserError(f"entries.{name}.finetune", f"entries.{name} has no recipe for its fine-tuning", fix)
        first, last = ({"optimization.layer_decay": 1}, entry.changed) if scratch else ({}, {})
        return Recipe(config, self.finetune.changed | first | own.changed | last)


def read_comparison(config: Path) -> Comparison:
    """Read the file of a comparison.

    Raises:
        UserError: A key is wrong or missing, a recipe does not exist, or shards hold no images or no labels.
    """
    _check_keys(read_recipe(find_recipe(str(config), "compare")).get("entries"))
    return _plan(**parse(_plan, "mae-kit compare", ["--config", str(config)], "compare"))


def _plan(
    data: str,
    entries: dict[str | int | float, Entry],
    images_seen: int,
    finetune: Recipe = Recipe(),
    train: str | None = None,
    val: str | None = None,
    seeds: int = 1,
    exclude: str | None = None,
    overrides: dict[str, Any] | None = None,
) -> Comparison:
    """Check and complete the keys of a comparison's file.

    Args:
        data: Images to pretrain on, as --data of `mae-kit pretrain`.
        entries: What is compared, by name; all are compared with the first unless they have `against`.
        images_seen: Length of every pretraining.
        finetune: How encoders are fine-tuned; by default by the recipe that each pretraining recipe names.
        train: Labeled images to fine-tune on; by default `data`.
        val: Labeled images to score on; by default the held-out split of `train`.
        seeds: Trainings of each entry.
        exclude: List of samples that no pretraining sees, as `mae-kit dedup` writes it.
        overrides: Overrides of every pretraining, as {machine.threads: 1}; those of an entry come last.
    """
    given = {"images_seen": images_seen, "seeds": seeds, "entries": len(entries)}
    check_ranges(given, **dict.fromkeys(given, POSITIVE))
    named = {str(name): _with(overrides or {}, entry) for name, entry in entries.items()}
    _check_overrides(finetune, _FINETUNING, "finetune")
    for name, entry in named.items():
        _check_entry(name, entry, named)
        _check_length(name, entry, images_seen)
    shards, (labeled, held_out) = resolve(data, "train"), resolve_pair(train or data, val)
    indexes = {place: open_index(place) for place in dict.fromkeys((shards, labeled, held_out))}
    images = kept(indexes[shards], exclude)
    prints = {"images": images.fingerprint, "train": indexes[labeled].fingerprint, "val": indexes[held_out].fingerprint}
    classes, *others = (bool(len(rows)) for rows in _rows_of_kinds(indexes[held_out]))
    places = shards, labeled, held_out, len(images.rows)
    plan = Comparison(*places, images_seen, named, finetune, seeds, exclude, prints, classes, classes or any(others))
    for name in named:
        plan.finetuning(name)
    return plan


def _rows_of_kinds(index: Index) -> tuple[np.ndarray, ...]:
    """Rows that have classes, masks and numbers."""
    return index.labeled(), index.masked(), index.targeted()


def _with(overrides: dict[str, Any], entry: Entry) -> Entry:
    return entry if entry.config is None else replace(entry, overrides={**overrides, **entry.changed})


def _check_keys(entries: Any) -> None:
    """Refuse an entry that is no mapping or has no `config`, since null means from scratch."""
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        if not isinstance(entry, dict) or "config" not in entry:
            fix = "write {config: RECIPE}, or {config: null} to train from scratch"
            raise UserError("entries.config", f"entries.{name} names no recipe", fix)
        for key in entry:
            if key not in _KEYS:
                raise UserError("entries.unknown", f"unknown key entries.{name}.{key}", f"use {', '.join(_KEYS)}")


def _check_entry(name: str, entry: Entry, entries: dict[str, Entry]) -> None:
    if not _NAME.fullmatch(name):
        raise UserError("entries.name", f"{name!r} cannot name an entry", "use letters, digits, and - _ + . between")
    if entry.against is not None and str(entry.against) not in entries:
        problem = f"entries.{name}.against is {entry.against}"
        raise UserError("entries.against", problem, f"name one of {', '.join(entries)}")
    _check_overrides(entry, _PRETRAINING if entry.config else _FINETUNING, f"entries.{name}")
    if entry.finetune:
        _check_overrides(entry.finetune, _FINETUNING, f"entries.{name}.finetune")


def _check_overrides(recipe: Recipe, shared: tuple[str, ...], where: str) -> None:
    """Refuse overrides of what the comparison sets for all, also by a whole part such as `data`."""
    for key in recipe.changed:
        if not _SETTING.fullmatch(key) or key.rpartition(".")[2] in _OPTIONS:
            fix = "use dotted keys, such as data.batch_size"
            raise UserError(f"{where}.overrides.unknown", f"{where}.overrides has {key}, which is not a setting", fix)
        if own := [one for one in shared if f"{one}.".startswith(f"{key}.")]:
            problem = f"{where}.overrides has {key}, and the comparison sets {', '.join(own)} for all"
            fix = "remove it, or override individual keys, such as data.batch_size"
            raise UserError(f"{where}.overrides", problem, fix)


def _check_length(name: str, entry: Entry, images_seen: int) -> None:
    """Refuse batch sizes of which no number comes close to the images to be seen."""
    if entry.config is None:
        return
    batch = number(entry, BATCH_SIZE)
    given = {key: number(entry, key) for key in (EPOCHS, BATCH_SIZE)}
    check_ranges(given, **dict.fromkeys(given, POSITIVE))
    seen = batch * max(1, round(images_seen / batch))
    if abs(seen - images_seen) > TOLERANCE * images_seen:
        problem = f"images_seen is {images_seen}, and entries.{name} with batches of {batch:g} would see {seen:g}"
        fix = "use a multiple of all batch sizes, or override data.batch_size"
        raise UserError("images_seen.multiple", problem, fix)


def number(entry: Entry, key: str) -> float:
    """Return a number of an entry's pretraining, 0 where neither its overrides nor its recipe have it.

    Raises:
        UserError: The value is no number.
    """
    return _number(entry, key, entry.settings("pretrain").get(key, 0))


def numbers(entry: Entry, key: str) -> list[float]:
    """Return a list of numbers of an entry's pretraining, as `number`."""
    values = entry.settings("pretrain").get(key, [])
    return [_number(entry, key, value) for value in (values if isinstance(values, list) else [values])]


def _number(entry: Entry, key: str, value: Any) -> float:
    try:
        return float(value)  # YAML reads 1e1 as text
    except (TypeError, ValueError):
        raise UserError(key, f"{key} of {entry.config} is {value}", "give a number") from None
