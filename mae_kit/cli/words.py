"""The words of a command line: recipes or positional arguments, and options."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mae_kit.errors import UserError

# What people type daily, and the setting it stands for, in commands that take recipes.
SHORT = {
    "data": "data.path",
    "epochs": "optimization.epochs",
    "batch_size": "data.batch_size",
    "lr": "optimization.learning_rate",
    "workers": "machine.num_workers",
    "precision": "machine.precision",
}
REPEATED = ("config", "import")  # may be given several times


class Words(NamedTuple):
    """A command line, read.

    Attributes:
        places: Words that belong to no option: recipes, or positional arguments.
        options: Values by name, with underscores; the last one counts, or a list for those of `REPEATED`.
    """

    places: list[str]
    options: dict[str, Any]


def read_words(words: Sequence[str], takes_value: Callable[[str], bool]) -> Words:
    """Split a command line.

    Args:
        words: What stands behind the command.
        takes_value: Tells by an option's name whether it needs a value; one that does not may still have `true` or
            `false` behind it.

    Raises:
        UserError: An option has no value.
    """
    places: list[str] = []
    options: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            places.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if not equals:
            value = _value(name, rest, takes_value(name))
        if name in REPEATED:
            options.setdefault(name, []).append(value)
        else:
            options[name] = value
    return Words(places, options)


def _value(name: str, rest: list[str], needed: bool) -> str:
    if rest and not rest[0].startswith("--") and (needed or rest[0].lower() in ("true", "false", "yes", "no")):
        return rest.pop(0)
    if needed:
        raise UserError(name, f"--{name} has no value", f"give --{name} VALUE")
    return "true"


def short_of(key: str) -> str:
    """The name by which people type a setting."""
    return next((short for short, long in SHORT.items() if long == key), key)
