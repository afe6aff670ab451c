"""Masked image pretraining, from a folder of images to a classifier.

Every verb of the command line is a function of the same name and arguments, imported when it is first asked for, so
that `import mae_kit` stays light: `mae_kit.shard`, `mae_kit.pretrain`, ...
"""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    from mae_kit.cli import VERBS, load

    if name not in VERBS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return load(VERBS[name])


def __dir__() -> list[str]:
    from mae_kit.cli import VERBS

    return sorted([*globals(), *VERBS])
