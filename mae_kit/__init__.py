"""Masked image pretraining, from a folder of images to a classifier.

Everything public is an attribute of this package, imported when it is first used, so that `import mae_kit` stays light:
objectives (`mae_kit.MAE`), encoders (`mae_kit.ViT`), and every command of the command line as a function of the same
name (`mae_kit.pretrain`; a name that Python keeps for itself ends in an underscore: `mae_kit.import_`). Commands accept
paths as strings, though type checkers expect `Path`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mae_kit.version import __version__ as __version__

# Where each public name lives. A new name gets a line here and an import below, for editors and type checkers.
MODULES = {
    "BEiT": "objectives",
    "ContrastiveMAE": "objectives",
    "CrossMAE": "objectives",
    "FCMAE": "objectives",
    "HieraMAE": "objectives",
    "IGPT": "objectives",
    "MAE": "objectives",
    "MaskFeat": "objectives",
    "MaskedPatch": "objectives",
    "Objective": "objectives",
    "SimMIM": "objectives",
    #
    "BEiTEncoder": "encoders",
    "ConvNeXtV2": "encoders",
    "DVAE": "encoders.tokenizers",
    "EVA": "encoders",
    "Encoder": "encoders",
    "Hiera": "encoders",
    "ImageGPT": "encoders",
    "Swin": "encoders",
    "ViT": "encoders",
    #
    "FinetuneModule": "tasks.module",
    "PretrainModule": "training.modules",
    "Detection": "tasks.detection",
    "Regression": "tasks.regression",
    "Segmentation": "tasks.segmentation",
    "ShardDataModule": "training.datamodule",
    "TokenizerModule": "training.modules",
    "load_classifier": "weights.native",
    "load_encoder": "weights.recognize",
    "load_model": "weights.native",
    "load_tokenizer": "encoders.tokenizers",
    #
    "UserError": "errors",
    #
    "bench": "commands.bench",
    "compare": "commands.compare",
    "dedup": "commands.dedup",
    "demo": "commands.demo",
    "doctor": "commands.doctor",
    "embed": "commands.embed",
    "evaluate": "commands.evaluate",
    "export": "commands.export",
    "finetune": "commands.finetune",
    "import_": "commands.import_",
    "index": "commands.index",
    "inspect": "commands.inspect",
    "plan": "commands.plan",
    "predict": "commands.predict",
    "pretrain": "commands.pretrain",
    "recipes": "commands.recipes",
    "reconstruct": "commands.reconstruct",
    "report": "commands.report",
    "shard": "commands.shard",
    "tokenizer": "commands.tokenizer",
}

if TYPE_CHECKING:  # at run time these go through `__getattr__`
    from mae_kit.cli.calling import RecipeCommand
    from mae_kit.commands.bench import bench as bench
    from mae_kit.commands.compare import compare as compare
    from mae_kit.commands.dedup import dedup as dedup
    from mae_kit.commands.demo import demo as demo
    from mae_kit.commands.doctor import doctor as doctor
    from mae_kit.commands.embed import embed as embed
    from mae_kit.commands.evaluate import evaluate as evaluate
    from mae_kit.commands.export import export as export
    from mae_kit.commands.import_ import import_ as import_
    from mae_kit.commands.index import index as index
    from mae_kit.commands.inspect import inspect as inspect
    from mae_kit.commands.predict import predict as predict
    from mae_kit.commands.recipes import recipes as recipes
    from mae_kit.commands.reconstruct import reconstruct as reconstruct
    from mae_kit.commands.report import report as report
    from mae_kit.commands.shard import shard as shard
    from mae_kit.encoders import EVA as EVA
    from mae_kit.encoders import BEiTEncoder as BEiTEncoder
    from mae_kit.encoders import ConvNeXtV2 as ConvNeXtV2
    from mae_kit.encoders import Encoder as Encoder
    from mae_kit.encoders import Hiera as Hiera
    from mae_kit.encoders import ImageGPT as ImageGPT
    from mae_kit.encoders import Swin as Swin
    from mae_kit.encoders import ViT as ViT
    from mae_kit.encoders.tokenizers import DVAE as DVAE
    from mae_kit.encoders.tokenizers import load_tokenizer as load_tokenizer
    from mae_kit.errors import UserError as UserError
    from mae_kit.objectives import FCMAE as FCMAE
    from mae_kit.objectives import IGPT as IGPT
    from mae_kit.objectives import MAE as MAE
    from mae_kit.objectives import BEiT as BEiT
    from mae_kit.objectives import ContrastiveMAE as ContrastiveMAE
    from mae_kit.objectives import CrossMAE as CrossMAE
    from mae_kit.objectives import HieraMAE as HieraMAE
    from mae_kit.objectives import MaskedPatch as MaskedPatch
    from mae_kit.objectives import MaskFeat as MaskFeat
    from mae_kit.objectives import Objective as Objective
    from mae_kit.objectives import SimMIM as SimMIM
    from mae_kit.tasks.detection import Detection as Detection
    from mae_kit.tasks.module import FinetuneModule as FinetuneModule
    from mae_kit.tasks.regression import Regression as Regression
    from mae_kit.tasks.segmentation import Segmentation as Segmentation
    from mae_kit.training.datamodule import ShardDataModule as ShardDataModule
    from mae_kit.training.modules import PretrainModule as PretrainModule
    from mae_kit.training.modules import TokenizerModule as TokenizerModule
    from mae_kit.weights.native import load_classifier as load_classifier
    from mae_kit.weights.native import load_model as load_model
    from mae_kit.weights.recognize import load_encoder as load_encoder

    finetune: RecipeCommand
    plan: RecipeCommand
    pretrain: RecipeCommand
    tokenizer: RecipeCommand

__all__ = [*MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{MODULES[name]}"), name)
    if isinstance(value, type):
        return value
    from mae_kit.cli.calling import as_command

    return as_command(value)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
