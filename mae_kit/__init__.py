"""Masked image pretraining, from a folder of images to a classifier.

Every verb of the command line is a function, imported when it is first asked for, so that `import mae_kit` stays light:
`mae_kit.shard`, `mae_kit.predict`, ... Where a verb has a module of its own name, that name is the module:
`mae_kit.pretrain.pretrain`, `mae_kit.finetune.finetune`.
"""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    from mae_kit.cli import VERBS, load

    if name not in VERBS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = VERBS[name].function.partition(":")[0]
    return importlib.import_module(module) if module == f"{__name__}.{name}" else load(VERBS[name])


def __dir__() -> list[str]:
    from mae_kit.cli import VERBS

    return sorted([*globals(), *VERBS])
