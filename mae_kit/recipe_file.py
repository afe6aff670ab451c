"""Recipes by name: the YAML files in `recipes/`, of the source checkout or as installed."""

import difflib
import sysconfig
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from mae_kit.errors import UserError

_CHECKOUT = Path(__file__).resolve().parent.parent / "recipes"
_INSTALLED = Path(sysconfig.get_path("data")) / "share" / "mae_kit" / "recipes"
FOLDER = _CHECKOUT if _CHECKOUT.is_dir() else _INSTALLED

# Of each folder of recipes the verb that takes them, and a key that no other verb's runs have.
KINDS = {
    "pretrain": ("pretrain", "objective"),
    "tokenizer": ("tokenizer", "relaxation"),
    "downstream": ("finetune", "augmentation"),
    "compare": ("compare", "entries"),
}


def find_recipe(name: str, kind: str) -> Path:
    """The file of a recipe.

    Args:
        name: A path, or a recipe's name with or without its folder and suffix: `mae_vit_b16`, `on/gpu`.
        kind: The folder looked in first, of those in `KINDS`. After it `on`, the machines.

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
    for other, (verb, _) in KINDS.items():
        if (FOLDER / other / file_name).is_file():
            raise UserError("recipes.find_recipe", f"{name} is a recipe of {verb}", _suggestion(given.stem, kind))
    raise UserError("recipes.find_recipe", f"no recipe {name}", _suggestion(given.stem, kind))


def verb_of(recipe: dict[str, Any]) -> str | None:
    """The verb that a recipe is for, by a key that no other verb's has; None where it has none of these."""
    return next((verb for verb, key in KINDS.values() if key in recipe), None)


def read_recipe(file: Path) -> dict[str, Any]:
    """What a recipe's file says.

    Raises:
        UserError: It is not YAML, holds no keys, or one twice.
    """
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _OnceEach)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError("recipes.read_recipe", f"{file} is not YAML", " ".join(str(error).split())) from None
    if not isinstance(content, dict):
        raise UserError("recipes.read_recipe", f"{file} is no recipe", "it holds `key: value` lines, see recipes/")
    return content


class _OnceEach(yaml.SafeLoader):
    """Of a key that is there twice YAML's own loader takes the last, without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = []
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if name in names:
                raise ConstructorError(problem=f"{name} is there twice", problem_mark=key.start_mark)
            names.append(name)
        return super().construct_mapping(node, deep)


def recipe_names(kind: str) -> list[str]:
    """What `find_recipe` knows by name, for one kind and for the machines."""
    return [f"{folder}/{path.stem}" for folder in (kind, "on") for path in sorted((FOLDER / folder).glob("*.yaml"))]


def _suggestion(stem: str, kind: str) -> str:
    names = {Path(name).name: name for name in recipe_names(kind)}
    near = difflib.get_close_matches(stem, names, 3)
    if near:
        return f"did you mean {' or '.join(names[name] for name in near)}?"
    if names:
        return f"give a path, or one of {', '.join(names.values())}"
    return "give the path of a YAML file"
