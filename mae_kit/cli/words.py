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
    "accumulate": "machine.accumulate_grad_batches",
    "precision": "machine.precision",
    "pack": "machine.pack",
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


def read_words(words: Sequence[str], kind_of: Callable[[str], Any]) -> Words:
    """Split a command line.

    Args:
        words: What stands behind the command.
        kind_of: The type of an option, by its name. A bool without a value is true, and false behind `--no-`; None, a
            type that is not known yet, takes the next word if there is one.

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
        if name.startswith("no_") and not equals and kind_of(name[3:]) is bool:
            name, value = name[3:], "false"
        elif not equals:
            value = _value(name, rest, kind_of(name))
        if name in REPEATED:
            options.setdefault(name, []).append(value)
        else:
            options[name] = value
    return Words(places, options)


def _value(name: str, rest: list[str], kind: Any) -> str:
    follows = bool(rest) and not rest[0].startswith("--")
    if follows and (kind is not bool or rest[0].lower() in ("true", "false", "yes", "no")):
        return rest.pop(0)
    if kind in (bool, None):
        return "true"
    raise UserError(name, f"--{name} needs a value", f"give --{name} VALUE")


def take(words: Sequence[str], option: str) -> tuple[str, list[str]]:
    """Take an option out of a command line.

    Returns:
        Its value, `true` if it has none, empty if it is not there; and the other words.
    """
    rest = list(words)
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == f"--{option}":
            follows = not equals and words[place + 1 : place + 2] and not words[place + 1].startswith("--")
            del rest[place : place + 1 + bool(follows)]
            return (words[place + 1] if follows else value or "true"), rest
    return "", rest


def short_of(key: str) -> str:
    """The name by which people type a setting."""
    return next((short for short, long in SHORT.items() if long == key), key)
