"""What is compared: the entries, and what they all have in common."""

import json
import math
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mae_kit.cli.parser import parse
from mae_kit.data.index.exclusions import kept
from mae_kit.data.index.labels import common_classes
from mae_kit.data.index.open import open_index
from mae_kit.errors import UserError
from mae_kit.recipe_file import KINDS, find_recipe, read_recipe, verb_of
from mae_kit.training.config import must_be_positive, must_be_within

EPOCHS, WARM_UP, STEPS = "optimization.epochs", "optimization.warmup_epochs", "optimization.steps"
BATCH_SIZE = "data.batch_size"
UNEVEN = 0.05  # of the images seen: further apart they are not the same
_NAME = re.compile(r"\w[\w.+-]*")
_SETTING = re.compile(r"[A-Za-z]\w*(\.\w+)*")
_NO_SETTINGS = ("help", "json", "print_config", "resume")  # words of a command line that no recipe has
_ALWAYS = ("config", "run", "seed")
_OF_PRETRAINING = (
    *_ALWAYS,
    "data.path",
    "data.exclude",
    "data.knn_shards",
    EPOCHS,
    WARM_UP,  # the recipe's share of the length, which is the comparison's
)
_OF_FINETUNING = (*_ALWAYS, "data.path", "data.val", "encoder")


@dataclass(frozen=True)
class Recipe:
    """A recipe and what differs from it.

    Attributes:
        config: The recipe, by path or name.
        overrides: Dotted keys and their values, as on the command line; none of those that the comparison sets.
    """

    config: str | None
    overrides: dict[str, Any] | None = field(default_factory=dict)

    @property
    def changed(self) -> dict[str, Any]:
        """The overrides, their keys spelled in one way; an empty key in the file is none of them."""
        plain = json.loads(json.dumps(self.overrides or {}, default=vars))  # the parser makes objects of classes
        return {key.replace("-", "_"): value for key, value in plain.items()}

    def words(self) -> list[str]:
        """As the command line has them."""
        values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in self.changed.items()}
        return [word for key, value in values.items() for word in (f"--{key}", value)]


@dataclass(frozen=True)
class Entry(Recipe):
    """A pretraining; null as its recipe trains from scratch, and overrides are then for the fine-tuning.

    Attributes:
        finetune: Where this encoder becomes a classifier by another recipe than the others, or by further overrides.
        against: The entry that this one is compared with; by default the first.
    """

    finetune: Recipe | None = None
    against: str | int | float | None = None  # YAML reads 0.75 as a number


_KEYS = tuple(one.name for one in fields(Entry))


class Budget(NamedTuple):
    """What all pretrainings have alike.

    Attributes:
        kind: Images seen, minutes of this machine, or operations.
        amount: Of one pretraining.
    """

    kind: Literal["images_seen", "minutes", "flops"]
    amount: float


class Plan(NamedTuple):
    """A comparison that can work.

    Attributes:
        shards: To pretrain on.
        train: Labeled shards to learn classes from.
        val: Labeled shards to score on.
        samples: Images to pretrain on.
        budget: Of every pretraining.
        entries: By name.
        finetune: How every encoder becomes a classifier.
        seeds: Trainings of each entry.
        without: Samples that no pretraining sees.
        prints: Fingerprints of the `images` to pretrain on, of `train` and of `val`, labels included.
    """

    shards: str
    train: str
    val: str
    samples: int
    budget: Budget
    entries: dict[str, Entry]
    finetune: Recipe
    seeds: int
    without: str | None
    prints: dict[str, str]

    def against(self, name: str) -> str:
        """The entry that this one is compared with."""
        own = self.entries[name].against
        return next(iter(self.entries)) if own is None else str(own)

    def tuning(self, name: str) -> Recipe:
        """How this entry becomes a classifier; from scratch no layer learns slower than another, unless it says so."""
        entry = self.entries[name]
        own, scratch = entry.finetune or Recipe(None), entry.config is None
        even, last = ({"optimization.layer_decay": 1}, entry.changed) if scratch else ({}, {})
        return Recipe(own.config or self.finetune.config, self.finetune.changed | even | own.changed | last)


def read_plan(config: Path) -> Plan:
    """Read a comparison.

    Raises:
        UserError: A key that is wrong or missing, a recipe that is not there, or shards without images.
    """
    _must_hold_keys(read_recipe(find_recipe(str(config), "compare")).get("entries"))
    return _plan(**parse(_plan, "mae-kit compare", ["--config", str(config)], "compare"))


def _plan(
    shards: str,
    val: str,
    entries: dict[str | int | float, Entry],
    finetune: Recipe,
    images_seen: int | None = None,
    minutes: float | None = None,
    flops: float | None = None,
    train: str | None = None,
    seeds: int = 1,
    without: str | None = None,
    overrides: dict[str, Any] | None = None,
) -> Plan:
    """A comparison, from the keys of its file.

    Args:
        shards: To pretrain on.
        val: Labeled shards to score on.
        entries: What is compared, by name; the first is what the others are compared with, unless they say `against`.
        finetune: How every encoder becomes a classifier.
        images_seen: Length of every pretraining; or one of the next two in its place.
        minutes: Of training steps on this machine, in place of images_seen; a short trial says what they are worth.
        flops: Multiplications and additions, each counted, in place of images_seen.
        train: Labeled shards to learn classes from; by default those to pretrain on.
        seeds: Trainings of each entry.
        without: A list of samples that no pretraining sees, as `mae-kit dedup` writes it.
        overrides: Of every pretraining, as {machine.threads: 1}; those of an entry come last.
    """
    budget = _budget({"images_seen": images_seen, "minutes": minutes, "flops": flops})
    must_be_positive({budget.kind: budget.amount, "seeds": seeds, "the number of entries": len(entries)})
    named = {str(name): _with(overrides or {}, entry) for name, entry in entries.items()}  # YAML reads 0.75 as a number
    for name, entry in named.items():
        _must_be_entry(name, entry)
        if entry.against is not None and str(entry.against) not in named:
            raise UserError(
                "plan.plan", f"entries.{name}.against is {entry.against}", f"name one of {', '.join(named)}"
            )
    _must_be_whole_steps(budget, named)
    if finetune.config is None:
        raise UserError(
            "finetune.config", "finetune.config is null", "give the recipe that makes classifiers, as vit_tiny_64px"
        )
    _must_finetune(finetune, "finetune")
    train = train or shards
    indexes = {place: open_index(place) for place in dict.fromkeys((shards, train, val))}
    common_classes(indexes[train], indexes[val], (train, val))
    images = kept(indexes[shards], without)
    prints = {"images": images.fingerprint, "train": indexes[train].fingerprint, "val": indexes[val].fingerprint}
    return Plan(shards, train, val, len(images.rows), budget, named, finetune, seeds, without, prints)


def _with(overrides: dict[str, Any], entry: Entry) -> Entry:
    return entry if entry.config is None else replace(entry, overrides={**overrides, **entry.changed})


def _must_hold_keys(entries: Any) -> None:
    """Of what is none the parser does not say which it is; a recipe that was forgotten is no training from scratch."""
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        if not isinstance(entry, dict):
            fix = "write {config: RECIPE}, or {config: null} for a training from scratch"
            raise UserError("plan.must_hold_keys", f"entries.{name} is {entry}, it holds keys", fix)
        for key in entry:
            if key not in _KEYS:
                raise UserError(
                    "plan.must_hold_keys", f"unknown key entries.{name}.{key}", f"it may be one of {', '.join(_KEYS)}"
                )
        if "config" not in entry:
            raise UserError(
                "plan.must_hold_keys",
                f"entries.{name}.config is missing",
                "give a recipe, or null for a training from scratch",
            )


def setting(entry: Entry, key: str) -> float:
    """A number that an entry's pretraining has by its overrides or its recipe, 0 where it has none.

    Raises:
        UserError: It is no number.
    """
    return _number(entry, key, _value(entry, key, 0))


def settings(entry: Entry, key: str) -> list[float]:
    """Numbers that it has in a list, as `setting`.

    Raises:
        UserError: It is no list of numbers.
    """
    values = _value(entry, key, [])
    if not isinstance(values, list):
        raise UserError("plan.settings", f"{key} of {entry.config} is {values}", "give a list of numbers")
    return [_number(entry, key, value) for value in values]


def _value(entry: Entry, key: str, default: Any) -> Any:
    assert entry.config is not None
    part, name = key.split(".")
    own = read_recipe(find_recipe(entry.config, "pretrain")).get(part)
    return entry.changed.get(key, own.get(name, default) if isinstance(own, dict) else default)


def _number(entry: Entry, key: str, value: Any) -> float:
    try:
        return float(value)  # YAML reads 1e1 as text
    except (TypeError, ValueError):
        raise UserError("plan.number", f"{key} of {entry.config} is {value}", "give a number") from None


def _must_be_entry(name: str, entry: Entry) -> None:
    """Refuse what would fail after hours, when the turn comes to it."""
    if not _NAME.fullmatch(name):
        raise UserError("plan.entry", f"{name!r} cannot name an entry", "use letters, digits, and - _ + . between them")
    if entry.config is None:
        _must_leave(entry, _OF_FINETUNING, f"entries.{name}")
    else:
        _must_leave(entry, _OF_PRETRAINING, f"entries.{name}")
        _must_be_recipe(entry.config, "pretrain", f"entries.{name}")
        must_be_positive({f"{key} of {entry.config}": setting(entry, key) for key in (EPOCHS, BATCH_SIZE)})
        must_be_within(0, math.inf, {f"{WARM_UP} of {entry.config}": setting(entry, WARM_UP)})
        settings(entry, STEPS)
    if entry.finetune:
        _must_finetune(entry.finetune, f"entries.{name}.finetune")


def _must_finetune(recipe: Recipe, where: str) -> None:
    if recipe.config is not None:
        _must_be_recipe(recipe.config, "downstream", where)
    _must_leave(recipe, _OF_FINETUNING, where)


def _must_be_recipe(config: str, kind: str, where: str) -> None:
    needed, verb = KINDS[kind][0], verb_of(read_recipe(find_recipe(config, kind)))
    if verb not in (None, needed):
        raise UserError("plan.recipe", f"{where}.config is {config}, a recipe of {verb}", f"give one of {needed}")


def _must_be_whole_steps(budget: Budget, entries: dict[str, Entry]) -> None:
    """Of batches of other sizes the same images may be seen no more than nearly."""
    for name, entry in entries.items():
        if budget.kind == "images_seen" and entry.config is not None:
            batch = setting(entry, BATCH_SIZE)
            seen = batch * max(1, round(budget.amount / batch))
            if abs(seen - budget.amount) > UNEVEN * budget.amount:
                what = f"images_seen is {budget.amount}, and entries.{name} of batches of {batch:g} would see {seen:g}"
                raise UserError(
                    "images_seen", what, "give a multiple of all batch sizes, or entries another data.batch_size"
                )


def _must_leave(recipe: Recipe, keys: tuple[str, ...], where: str) -> None:
    """Refuse overrides of what the comparison sets, also by a whole part such as `data`: not all would be alike."""
    for key in recipe.changed:
        if not _SETTING.fullmatch(key) or key.rpartition(".")[2] in _NO_SETTINGS:
            raise UserError(
                "plan.must_leave",
                f"{where}.overrides has {key}, which is no setting",
                "give dotted ones, as data.batch_size",
            )
        own = [one for one in keys if f"{one}.".startswith(f"{key}.")]
        if own:
            what = f"{where}.overrides has {key}, and the comparison sets {', '.join(own)} for all"
            raise UserError("plan.must_leave", what, "leave it out, or override single other keys, as data.batch_size")


def _budget(amounts: dict[Any, float | None]) -> Budget:
    given = {kind: amount for kind, amount in amounts.items() if amount is not None}
    if len(given) != 1:
        what = f"{' and '.join(given)} are all given" if given else "no length is given"
        raise UserError("plan.budget", what, f"give one of {', '.join(amounts)}")
    return Budget(*given.popitem())
