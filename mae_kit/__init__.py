"""Masked image pretraining, from a folder of images to a classifier.

Every verb of the command line is a function of the same name and arguments, imported when it is first asked for, so
that `import mae_kit` stays light: `mae_kit.shard`, `mae_kit.pretrain`, ... A verb that Python keeps for itself has an
underscore behind: `mae_kit.import_`. Paths may be strings, though type checkers want paths. What recipes name by class,
an objective and its data, are objects here: see the notebook.
"""

import keyword
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors; the rest goes through `__getattr__`
    from mae_kit.comparison import compare
    from mae_kit.data.index import index
    from mae_kit.data.shards import shard
    from mae_kit.demonstration import demo
    from mae_kit.diagnosis import doctor
    from mae_kit.downstream.predict import predict
    from mae_kit.duplicates import dedup
    from mae_kit.evaluating import evaluate, fewshot, knn, probe
    from mae_kit.exporting import export
    from mae_kit.finetuning import finetune
    from mae_kit.importing import import_
    from mae_kit.inspection import inspect
    from mae_kit.pretraining import pretrain
    from mae_kit.reporting import report
    from mae_kit.tokenizing import tokenizer
    from mae_kit.views.attend import attention
    from mae_kit.views.costs import bench
    from mae_kit.views.describe import features
    from mae_kit.views.locate import positions
    from mae_kit.views.reconstruct import reconstruct

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
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    from mae_kit.calling import with_any_path
    from mae_kit.cli import VERBS, load

    verb = next((verb for verb in VERBS if _function_name(verb) == name), None)
    if verb is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return with_any_path(load(VERBS[verb]))


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _function_name(verb: str) -> str:
    return f"{verb}_" if keyword.iskeyword(verb) else verb
