"""A function's signature as its command line: jsonargparse, recipes, and mistakes told in one line."""

import argparse
import inspect
import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from jsonargparse import SUPPRESS, ArgumentParser, Namespace

from mae_kit.cli.messages import explain, plain_types, refuse_nulls
from mae_kit.errors import UserError
from mae_kit.recipe_file import KINDS, find_recipe, read_recipe, verb_of

log = logging.getLogger(__name__)


class _Parser(ArgumentParser):
    def format_help(self) -> str:
        return plain_types(super().format_help())


def parse(function: Callable[..., Any], prog: str, words: list[str], recipes: str = "") -> dict[str, Any]:
    """The arguments of `function` that a command line stands for, classes instantiated.

    Args:
        function: Its typed signature is the schema, its Google docstring the help.
        prog: The words before, for the help.
        words: The command line.
        recipes: The folder of the recipes that --config finds by name; empty for a tool, which takes no --config and
            whose parameters without default are positional, but for those that Python takes by name alone.

    Raises:
        UserError: One line that names the key and the nearest valid one.
        SystemExit: After --help.
    """
    parser = build_parser(function, prog, recipes)
    values, fixed = _read(parser, words, recipes)
    arguments = _instantiate(parser, values) | fixed
    return {name: arguments[name] for name in inspect.signature(function).parameters}


def _read(parser: ArgumentParser, words: list[str], recipes: str) -> tuple[Namespace, dict[str, Any]]:
    """Values of the parser's keys, and whether a run is to be resumed."""
    words = [_underscored(word) for word in words]
    try:
        fixed, words = _recipes_first(words, recipes) if recipes else ({}, words)
        values = parser.parse_args(words)
    except argparse.ArgumentError as error:
        raise explain(str(error), parser) from None
    refuse_nulls(parser, values)
    return values, fixed


def _instantiate(parser: ArgumentParser, values: Namespace) -> dict[str, Any]:
    try:
        if "seed" in values:  # the weights are drawn as the classes are built
            import torch

            torch.manual_seed(values.seed)
        return parser.instantiate_classes(values).as_dict()
    except (UserError, OSError):
        raise
    except Exception as error:  # whatever torch and timm trip over in odd numbers
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(
            "parser.instantiate", f"no model can be built ({reason})", "look at the recipe's numbers"
        ) from error


def build_parser(function: Callable[..., Any], prog: str, recipes: str = "") -> ArgumentParser:
    """The parser of one verb."""
    about = inspect.getdoc(function) or ""
    parser = _Parser(
        prog=prog,
        usage=f"{prog} --config RECIPE [--KEY VALUE ...]\n       {prog} --resume RUN" if recipes else None,
        description=re.split(r"\n\w+:\n", about)[0].strip(),
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--json", action="store_true", default=SUPPRESS, help="Print one JSON object on stdout and nothing else there."
    )
    if recipes:
        parser.add_argument("--config", action="config", metavar="RECIPE", help=_CONFIG_HELP)
        parser.add_argument(
            "--resume", metavar="RUN", default=SUPPRESS, help="Go on with a stopped run, with the recipe it has saved."
        )
    named = {name for name, one in inspect.signature(function).parameters.items() if one.kind is one.KEYWORD_ONLY}
    placed = inspect.signature(function).parameters.keys() - named
    for skipped, positional in ((named, not recipes), (placed, False)):
        parser.add_function_arguments(
            function, as_group=False, as_positional=positional, fail_untyped=True, skip={"resume", *skipped}
        )
    for action in parser._actions:
        _loosen(action)
    required = [action.dest for action in parser._actions if action.dest in parser.required_args]
    parser.required_args = dict.fromkeys(required)  # type: ignore[assignment]  # a set: the one it misses is random
    return parser


_CONFIG_HELP = "A recipe, by path or name; may be given again, a later one overlays an earlier one."


def _underscored(word: str) -> str:
    """`--val-fraction` is `--val_fraction`; a value is left as it is."""
    name, equals, value = word.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + equals + value if word.startswith("--") else word


def _loosen(action: Any) -> None:
    """Let `--flag` mean true, and a positional list take several words."""
    kind = getattr(action, "_typehint", None)
    if kind is bool and action.option_strings:
        action.nargs, action.const = "?", True
    elif get_origin(kind) is list and not action.option_strings:
        action.nargs, action.metavar = "+", action.dest.upper()
        action._typehint = get_args(kind)[0]


def _recipes_first(words: list[str], recipes: str) -> tuple[dict[str, Any], list[str]]:
    """Find the recipes and put them in front, so that an override holds wherever it stands; unfold --resume RUN."""
    front = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    front.add_argument("--config", action="append", default=[])
    front.add_argument("--resume", type=Path)
    front.add_argument("--run", type=Path)
    known, rest = front.parse_known_args(words)
    configs = [_readable(find_recipe(name, recipes)) for name in known.config]
    if known.resume:
        if known.run and known.run.resolve() != known.resume.resolve():
            what = f"--resume {known.resume} goes on in that folder, not in --run {known.run}"
            raise UserError("resume", what, "leave out one of the two")
        configs.insert(0, _saved_recipe(known.resume, recipes))
    if run := known.resume or known.run:
        rest += ["--run", str(run)]
    _must_be_one_objective(configs, rest)
    return {"resume": known.resume is not None}, _one_model(configs, rest)


def _must_be_one_objective(configs: list[Path], words: list[str]) -> None:
    """Another class would silently keep the settings of the first that have the same names, as its mask ratio."""
    front = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    front.add_argument("--objective", action="append", default=[])
    front.add_argument("--objective.class_path", dest="objective", action="append")
    objectives = [read_recipe(path).get("objective") for path in configs]
    objectives += map(_value, front.parse_known_args(words)[0].objective)
    named = list(dict.fromkeys(filter(None, map(_class_name, objectives))))
    if len(named) > 1:
        what = f"the recipe is of {named[0]}, and the objective {named[1]}"
        raise UserError(
            "parser.one_objective", what, f"begin with a recipe of {named[1]}: no setting of another is kept"
        )


def _value(word: str) -> Any:
    """What it says as YAML; of what is none the parser tells."""
    try:
        return yaml.safe_load(word)
    except yaml.YAMLError:
        return None


def _class_name(objective: Any) -> str:
    """Without its module; empty where none is named."""
    path = objective.get("class_path") if isinstance(objective, dict) else objective
    return str(path or "").rpartition(".")[2]


def _one_model(configs: list[Path], words: list[str]) -> list[str]:
    """The recipes and the words behind them; `model.args` are dropped where what comes later names another model."""
    layers = [(_model_of(path), [f"--config={path}"]) for path in configs]
    layers.append((_given_model(words), words))
    model: dict[str, Any] = {}
    ordered: list[str] = []
    for later, own in layers:
        if model.get("args") and later.get("name", model.get("name")) != model.get("name"):
            if "args" not in later:
                args = yaml.safe_dump(model["args"], default_flow_style=True, width=math.inf).strip()
                log.warning(f"{later['name']} is made without {args} of {model.get('name')}: --model.args gives others")
            ordered.append("--model.args={}")
            model = {}
        model = model | later
        ordered += own
    return ordered


def _model_of(recipe: Path) -> dict[str, Any]:
    model = read_recipe(recipe).get("model")
    return model if isinstance(model, dict) else {}


def _given_model(words: list[str]) -> dict[str, Any]:
    """What a command line says of the model's name, and whether it gives the arguments."""
    front = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    front.add_argument("--model.name", dest="name", default=argparse.SUPPRESS)
    front.add_argument("--model.args", dest="args", default=argparse.SUPPRESS)
    return vars(front.parse_known_args(words)[0])


def _readable(recipe: Path) -> Path:
    read_recipe(recipe)
    return recipe


def _saved_recipe(run: Path, recipes: str) -> Path:
    recipe = run / "config.yaml"
    if not recipe.is_file():
        raise UserError(
            "parser.saved_recipe", f"{run} has no config.yaml", "give the folder of a run that was started before"
        )
    verb = verb_of(read_recipe(recipe))
    if verb not in (None, KINDS[recipes][0]):
        raise UserError("parser.saved_recipe", f"{run} is a run of {verb}", f"mae-kit {verb} --resume {run}")
    return recipe
