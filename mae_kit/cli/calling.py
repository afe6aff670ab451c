"""Commands called from Python: recipes by name, and the values that the command line takes."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from mae_kit.cli.main import COMMANDS
from mae_kit.cli.parser import settings_of
from mae_kit.cli.schema import arguments
from mae_kit.parallel.processes import leave_unguarded_script


@runtime_checkable
class RecipeCommand(Protocol):
    """A command that takes recipes, as `mae_kit.pretrain`."""

    def __call__(self, recipe: Any = None, *overlays: Any, **settings: Any) -> dict[str, Any]:
        """Run the command.

        Args:
            recipe: A recipe's name or path; none with `resume=RUN`, or where all settings are given.
            overlays: More recipes, each overriding those before.
            settings: By short name (`data`, `epochs`, `batch_size`, `lr`, ...) or dotted path, for which Python needs
                a dictionary: `**{"data.crop_scale": [.2, 1]}`. Objects of the command's own types are taken as they
                are: `objective=MAE(...)`, `data=PretrainData(...)`. `config` is another name for `recipe`.

        Returns:
            What `mae-kit ... --json` prints.

        Raises:
            UserError: A setting is unknown, missing or cannot work; its `key` names it.
        """
        ...


def as_command(function: Callable[..., Any]) -> Callable[..., Any]:
    """A public function, as Python calls it; those that are not commands stay as they are."""
    name = function.__name__.rstrip("_")
    if name not in COMMANDS:
        return function
    kind = COMMANDS[name].recipes
    return with_recipes(function, kind) if kind else with_plain_values(function)


def with_recipes(function: Callable[..., Any], kind: str) -> RecipeCommand:
    """A command that takes recipes, for Python.

    Args:
        function: The command.
        kind: The folder of its recipes.
    """

    @functools.wraps(function)
    def call(recipe: Any = None, *overlays: Any, config: Any = None, resume: Any = None, **settings: Any) -> Any:
        leave_unguarded_script()
        files = [str(one) for one in (recipe, *overlays, config) if one is not None]
        return function(**arguments(function, settings_of(function, kind, files, resume, settings)))

    return call


def with_plain_values(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command without recipes, for Python: a path may be a string, and a list of one its element."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*positional: Any, **named: Any) -> Any:
        leave_unguarded_script()
        return function(**arguments(function, signature.bind(*positional, **named).arguments))

    return call
