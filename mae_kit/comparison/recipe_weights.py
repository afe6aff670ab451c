"""Weights that recipes name, told apart: means over seeds of which some began with others would be of nothing."""

import hashlib
from pathlib import Path
from typing import Any

from mae_kit.comparison.plan import Recipe
from mae_kit.recipe_file import find_recipe, read_recipe

KEYS = ("init", "tokenizer", "weights")
FILES = ("*.safetensors", "*.bin", "*.pkl")  # of a run and others; of older folders of transformers; of DALL-E


def weights_prints(recipe: Recipe, kind: str) -> dict[str, str]:
    """Fingerprints of the files that are named, by the last word of their key; what is published under a name has none.

    Args:
        recipe: Of an entry.
        kind: Folder of its recipe, where it is said by name.
    """
    named = (_leaves(read_recipe(find_recipe(recipe.config, kind))) if recipe.config else {}) | _leaves(recipe.changed)
    places = {key.rpartition(".")[2]: Path(value) for key, value in named.items() if isinstance(value, str) and value}
    return {key: _print(place) for key, place in places.items() if key in KEYS and place.exists()}


def _leaves(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and their values."""
    leaves: dict[str, Any] = {}
    for key, value in content.items():
        leaves |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def _print(place: Path) -> str:
    files = sorted(file for pattern in FILES for file in place.glob(pattern)) if place.is_dir() else [place]
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()[:16]
