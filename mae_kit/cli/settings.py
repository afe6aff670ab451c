"""One mapping of settings out of recipes, overlays, a saved run, and what is given besides."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from mae_kit.classes.own_code import allow, in_working_directory
from mae_kit.cli.words import SHORT
from mae_kit.errors import UserError
from mae_kit.files.recipe_file import KINDS, find_recipe, is_shipped, read_recipe, verb_of
from mae_kit.files.run_folder import RunFolder

log = logging.getLogger(__name__)

Settings = dict[str, Any]
RATES = ("learning_rate", "base_learning_rate")  # one of the two is given


def merged(kind: str, recipes: Sequence[str], resume: Path | None, given: Mapping[str, Any]) -> Settings:
    """Merge everything into one mapping; later layers override earlier ones.

    Args:
        kind: The folder of recipes, one of `KINDS`.
        recipes: Names or paths: a recipe, then its overlays.
        resume: The folder of a run, whose `config.yaml` is the first layer.
        given: Values by dotted key or short name.

    Raises:
        UserError: A file is missing or not a recipe, or two layers name different objectives.
    """
    files = [find_recipe(name, kind) for name in recipes]
    layers = [_read(file) for file in files]
    own = nested({_long(key, value): value for key, value in given.items()})
    _allow_named(own)
    if resume:
        layers.insert(0, _saved(resume, kind))
        own["run"] = _same_run(resume, own.get("run"))
    settings: Settings = {}
    for layer in [*layers, own]:
        _fit_warmup(settings, layer)
        _check_objective(settings, layer)
        _drop_replaced(settings, layer)
        settings = merge(settings, layer)
    return settings


def _fit_warmup(settings: Settings, layer: Settings) -> None:
    """Shorten the warm-up in proportion where a layer gives fewer epochs than it takes, and says nothing of it."""
    before, given = settings.get("optimization"), layer.get("optimization")
    if not (isinstance(before, dict) and isinstance(given, dict)) or "warmup_epochs" in given:
        return
    numbers = before.get("epochs"), before.get("warmup_epochs"), _number(given.get("epochs"))
    if not all(isinstance(number, int | float) and number > 0 for number in numbers):
        return
    epochs, warmup, shorter = numbers
    if warmup >= shorter:
        layer["optimization"] = {**given, "warmup_epochs": warmup * shorter / epochs}
        log.info(f"warm-up: {warmup * shorter / epochs:g} epochs instead of {warmup:g}, to fit into {shorter:g}")


def _number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _long(key: str, value: Any) -> str:
    """The setting that a short name stands for; `data` may also be all of its settings."""
    return key if isinstance(value, Mapping) or is_dataclass(value) else SHORT.get(key, key)


def _read(file: Path) -> Settings:
    """A recipe. Classes that a recipe of the user's names are looked for in the working directory, too."""
    content = read_recipe(file)
    if isinstance(content.get("objective"), str):
        content["objective"] = {"class_path": content["objective"]}
    if not is_shipped(file):
        _allow_named(content)
    return content


def _allow_named(content: Any) -> None:
    for path in _class_paths(content):
        module = path.rpartition(".")[0]
        if module and in_working_directory(module) and module.split(".")[0] != "mae_kit":
            allow(module)


def _class_paths(content: Any) -> Iterator[str]:
    """The classes of the objective and of its parts, in the only places that may name one."""
    objective = content.get("objective")
    objective = {"class_path": objective} if isinstance(objective, str) else objective
    if isinstance(objective, dict):
        inner = objective.get("init_args")
        parts = inner.values() if isinstance(inner, dict) else ()
        for part in (objective, *parts):
            path = part.get("class_path") if isinstance(part, dict) else None
            if isinstance(path, str):
                yield path


def _saved(run: Path, kind: str) -> Settings:
    file = RunFolder(run).config
    if not file.is_file():
        fix = "give the folder of a run that was started before"
        raise UserError("resume.config", f"{run} has no config.yaml", fix)
    content = read_recipe(file)
    command = verb_of(content)
    if command not in (None, KINDS[kind][0]):
        raise UserError("resume.command", f"{run} is a run of {command}", f"mae-kit {command} --resume {run}")
    return content


def _same_run(resume: Path, run: Any) -> str:
    if run is not None and Path(run).resolve() != resume.resolve():
        what = f"--resume {resume} continues in that folder, not in --run {run}"
        raise UserError("resume.run", what, "leave out one of the two")
    return str(resume)


def nested(given: Mapping[str, Any]) -> Settings:
    """Values by dotted key as nested mappings; dataclasses become mappings of their fields.

    Raises:
        UserError: A key has both a value and settings of its own.
    """
    settings: Settings = {}
    for key in sorted(given, key=lambda key: key.count(".")):
        *groups, last = key.split(".")
        place = settings
        for group in groups:
            place = _inside(place, group, key)
        place[last] = _as_mapping(given[key])
    return settings


def _inside(place: Settings, group: str, key: str) -> Settings:
    inner: Any = place.setdefault(group, {})
    if isinstance(inner, str):
        inner = place[group] = {"class_path": inner}
    if not isinstance(inner, dict):
        raise UserError(key, f"{key} cannot be set", f"{group} is {inner!r}, which has no settings")
    return inner.setdefault("init_args", {}) if "class_path" in inner else inner


_CLASS_KEYS = {"class_path", "init_args"}


def _as_mapping(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    return dict(value) if isinstance(value, Mapping) else value


def merge(base: Settings, over: Mapping[str, Any]) -> Settings:
    """`base` with the values of `over`, mappings within each other; another class keeps nothing of the first."""
    result = dict(base)
    for key, value in over.items():
        before = base.get(key)
        if not (isinstance(before, dict) and isinstance(value, Mapping)):
            result[key] = value
        elif "class_path" not in before:
            result[key] = merge(before, value)
        elif not value.keys() & _CLASS_KEYS:
            result[key] = merge(before, {"init_args": value})
        else:
            same = _name(value) in ("", _name(before))
            result[key] = merge(before, value) if same else dict(value)
    return result


def _check_objective(settings: Settings, layer: Mapping[str, Any]) -> None:
    """Another class would silently keep those settings of the first that have the same names, as its mask ratio."""
    before, now = _name(settings.get("objective")), _name(layer.get("objective"))
    if before and now and before != now:
        what = f"the recipe trains {before}, but objective is {now}"
        raise UserError(
            "objective.class_path", what, f"start from a recipe of {now}: the settings of {before} do not fit it"
        )


def _name(part: Any) -> str:
    """The class that a part names or has, without its module; empty where it names none."""
    if part is None or isinstance(part, str | Mapping):
        path = part.get("class_path", "") if isinstance(part, Mapping) else part or ""
        return str(path).rpartition(".")[2]
    return type(part).__name__


def _drop_replaced(settings: Settings, layer: Mapping[str, Any]) -> None:
    """Of another model the arguments of the first are dropped, and of another kind of learning rate the first."""
    model, other = _mapping(settings, "model"), _mapping(layer, "model")
    if "args" in model and other.get("name", model.get("name")) != model.get("name"):
        dropped = model.pop("args")
        if dropped and "args" not in other:
            log.info(
                f"model.args {dropped} of {model.get('name')} are dropped: --model.args sets those of {other['name']}"
            )
    given = [name for name in RATES if _mapping(layer, "optimization").get(name) not in (None, "null")]
    if len(given) == 1:
        _mapping(settings, "optimization").pop(RATES[1 - RATES.index(given[0])], None)


def _mapping(settings: Mapping[str, Any], name: str) -> Settings:
    part = settings.get(name)
    return part if isinstance(part, dict) else {}


def next_run(recipe: str) -> str:
    """The next free folder `runs/RECIPE[-N]`.

    Raises:
        UserError: Several processes would choose one each.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 or int(os.environ.get("SLURM_NTASKS", 1)) > 1:
        raise UserError("run.of_ranks", "several processes need one run folder", "add --run RUN")
    names = (recipe if number == 1 else f"{recipe}-{number}" for number in range(1, 100_000))
    return next(str(Path("runs") / name) for name in names if not (Path("runs") / name).exists())
