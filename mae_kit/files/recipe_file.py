"""Recipe files: found by name, and read through the one doorway for YAML."""

import difflib
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from mae_kit.errors import UserError

_CHECKOUT = Path(__file__).resolve().parents[2] / "recipes"
_INSTALLED = Path(sysconfig.get_path("data")) / "share" / "mae_kit" / "recipes"
FOLDER = _CHECKOUT if _CHECKOUT.is_dir() else _INSTALLED

# For each folder of recipes, the command that takes them, and a key that the runs of no other command have.
KINDS = {
    "pretrain": ("pretrain", "objective"),
    "tokenizer": ("tokenizer", "relaxation"),
    "downstream": ("finetune", "augmentation"),
    "compare": ("compare", "entries"),
}

QUICK = "contrastive_mae_vit_micro_64px"  # the pretraining to begin with

MAX_BYTES = 1_000_000
MAX_DEPTH = 20  # of nested lists and mappings; a recipe needs 6
MAX_DIGITS = 100


def find_recipe(name: str, kind: str) -> Path:
    """Find the file of a recipe.

    Args:
        name: A path, or a recipe's name with or without its folder and suffix: `mae_vit_b16`, `on/gpu`.
        kind: The folder that is searched first, one of `KINDS`; then `on`, the overlays for machines.

    Raises:
        UserError: There is none; names the nearest.
    """
    given = Path(name)
    if given.is_file():
        return given
    file_name = name if given.suffix in (".yaml", ".yml") else f"{name}.yaml"
    for folder in (FOLDER / kind, FOLDER / "on", FOLDER, FOLDER.parent):
        if (folder / file_name).is_file():
            return folder / file_name
    for other, (command, _) in KINDS.items():
        if (FOLDER / other / file_name).is_file():
            raise UserError("recipe.kind", f"{name} is a recipe for {command}", _suggestion(given.stem, kind))
    raise UserError("recipe.name.unknown", f"no recipe {name}", _suggestion(given.stem, kind))


def is_shipped(recipe: Path) -> bool:
    """Tell the recipes of mae_kit from a user's own file."""
    return FOLDER.resolve() in recipe.resolve().parents


def verb_of(recipe: dict[str, Any]) -> str | None:
    """The command that a recipe is for, known by a key that no other command has; None where it has none of these."""
    return next((verb for verb, key in KINDS.values() if key in recipe), None)


def read_recipe(file: Path) -> dict[str, Any]:
    """Read a recipe, a comparison or the `config.yaml` of a run.

    Raises:
        UserError: The file is not YAML as `parse_yaml` takes it, or not a mapping.
    """
    try:
        with file.open("rb") as opened:
            content = parse_yaml(opened.read(MAX_BYTES + 1).decode())
    except (ValueError, yaml.YAMLError) as error:
        raise UserError("recipe.yaml", f"{file} is not YAML", " ".join(str(error).split())) from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(
            "recipe.mapping",
            f"{file} is not a recipe",
            "a recipe has `key: value` lines; `mae-kit recipes` lists examples",
        )
    return content


def parse_yaml(text: str) -> Any:
    """Plain values from YAML: no tags, aliases or repeated keys, of bounded size and depth.

    As in YAML 1.2, a date and a number to base 60 are text: `16:9` is no 969.

    Raises:
        ValueError: It is larger, deeper, has tags, or refers to itself.
        yaml.YAMLError: It is not YAML.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it uses the alias *{event.anchor}: repeat the value instead")
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"it uses the tag {event.tag}: leave it out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    return yaml.load(text, _PlainLoader)


class _PlainLoader(yaml.SafeLoader):
    """Refuses repeated keys, of which YAML's own loader silently keeps the last, and numbers that nobody means."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # as PyYAML declares it
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_yaml_int(self, node: yaml.ScalarNode) -> Any:
        return self._number(node, super().construct_yaml_int)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> Any:
        return self._number(node, super().construct_yaml_float)

    def _number(self, node: yaml.ScalarNode, construct: Callable[[Any], float]) -> Any:
        if ":" in node.value:
            return node.value
        if len(node.value) > MAX_DIGITS:
            problem = f"it has a number of {len(node.value):,} characters"
            raise ConstructorError(problem=problem, problem_mark=node.start_mark)
        return construct(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):  # the loader itself refuses others
                name = self.construct_object(key)
                if name in names:
                    raise ConstructorError(problem=f"the key {name} is repeated", problem_mark=key.start_mark)
                names.add(name)
        return super().construct_mapping(node, deep)


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_yaml_int)
_PlainLoader.add_constructor("tag:yaml.org,2002:float", _PlainLoader.construct_yaml_float)


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested settings by dotted key."""
    values: dict[str, Any] = {}
    for key, value in settings.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return values


def recipe_names(kind: str) -> list[str]:
    """What `find_recipe` knows by name, for one kind and for the machines."""
    return [f"{folder}/{path.stem}" for folder in (kind, "on") for path in sorted((FOLDER / folder).glob("*.yaml"))]


def _suggestion(stem: str, kind: str) -> str:
    names = {Path(name).name: name for name in recipe_names(kind)}
    near = difflib.get_close_matches(stem, names, 3)
    if near:
        return f"did you mean {' or '.join(names[name] for name in near)}?"
    return "`mae-kit recipes` lists them all; a file of your own is given by its path"
