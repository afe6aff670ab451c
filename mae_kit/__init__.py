"""Masked image pretraining, from a folder of images to a classifier.

Every verb of the command line is a function of the same name and arguments, imported when it is first asked for, so
that `import mae_kit` stays light: `mae_kit.shard`, `mae_kit.pretrain`, ... A verb that Python keeps for itself has an
underscore behind: `mae_kit.import_`. Paths may be strings, though type checkers want paths. What recipes name by class,
an objective and its data, are objects here: see the notebook.
"""

import keyword
from typing import TYPE_CHECKING, Any

from mae_kit.version import __version__ as __version__

if TYPE_CHECKING:  # for editors; the rest goes through `__getattr__`
    from mae_kit.commands.attention import attention
    from mae_kit.commands.bench import bench
    from mae_kit.commands.compare import compare
    from mae_kit.commands.dedup import dedup
    from mae_kit.commands.demo import demo
    from mae_kit.commands.doctor import doctor
    from mae_kit.commands.evaluate import evaluate, fewshot, knn, probe
    from mae_kit.commands.export import export
    from mae_kit.commands.features import features
    from mae_kit.commands.finetune import finetune
    from mae_kit.commands.import_ import import_
    from mae_kit.commands.inspect import inspect
    from mae_kit.commands.positions import positions
    from mae_kit.commands.predict import predict
    from mae_kit.commands.pretrain import pretrain
    from mae_kit.commands.tokenizer import tokenizer
    from mae_kit.data.index.open import index
    from mae_kit.data.packing.writer import shard
    from mae_kit.plots.reconstruct import reconstruct
    from mae_kit.reports.page import report

__all__ = [
    "attention",
    "bench",
    "compare",
    "dedup",
    "demo",
    "doctor",
    "evaluate",
    "export",
    "features",
    "fewshot",
    "finetune",
    "import_",
    "index",
    "inspect",
    "knn",
    "positions",
    "predict",
    "pretrain",
    "probe",
    "reconstruct",
    "report",
    "shard",
    "tokenizer",
]


def __getattr__(name: str) -> Any:
    from mae_kit.cli.calling import with_any_path
    from mae_kit.cli.main import VERBS, load

    verb = next((verb for verb in VERBS if _function_name(verb) == name), None)
    if verb is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return with_any_path(load(VERBS[verb]))


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _function_name(verb: str) -> str:
    return f"{verb}_" if keyword.iskeyword(verb) else verb
