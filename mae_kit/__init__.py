"""Masked image pretraining, from a folder of images to a classifier.

Every verb of the command line is a function of the same name and arguments, imported when it is first asked for, so
that `import mae_kit` stays light: `mae_kit.shard`, `mae_kit.pretrain`, ... A verb that Python keeps for itself has an
underscore behind: `mae_kit.import_`.
"""

import keyword
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    from mae_kit.cli import VERBS, load

    verb = next((verb for verb in VERBS if _function_name(verb) == name), None)
    if verb is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return load(VERBS[verb])


def __dir__() -> list[str]:
    from mae_kit.cli import VERBS

    return sorted([*globals(), *map(_function_name, VERBS)])


def _function_name(verb: str) -> str:
    return f"{verb}_" if keyword.iskeyword(verb) else verb
