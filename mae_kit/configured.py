"""Modules that remember how they were made, so that a file can rebuild them."""

import importlib
import inspect
from typing import Any

from torch import nn

Config = dict[str, Any]


class Configured(nn.Module):
    """A module whose constructor arguments are its configuration: plain values or other configured modules."""

    def __new__(cls, *args: Any, **kwargs: Any):
        self = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind(self, *args, **kwargs)
        bound.apply_defaults()
        self.__dict__["arguments"] = {k: v for k, v in bound.arguments.items() if k != "self"}
        return self

    def config(self) -> Config:
        """What rebuilds the module (not its weights), in the form that recipes have: class_path and init_args."""
        arguments = {k: v.config() if isinstance(v, Configured) else v for k, v in self.__dict__["arguments"].items()}
        return {"class_path": f"{type(self).__module__}.{type(self).__qualname__}", "init_args": arguments}


def build(config: Config) -> Any:
    """The module that `config()` described, with fresh weights.

    Raises:
        ValueError: The class is not one of mae_kit's: a file must not choose what code runs.
    """
    module, _, name = config["class_path"].rpartition(".")
    if module.split(".")[0] != "mae_kit":
        raise ValueError(f"{config['class_path']} is not a class of mae_kit")
    kind = getattr(importlib.import_module(module), name)
    if not (isinstance(kind, type) and issubclass(kind, Configured)):
        raise ValueError(f"{config['class_path']} is not a module that mae_kit saves")
    arguments = {
        k: build(v) if isinstance(v, dict) and "class_path" in v else v for k, v in config["init_args"].items()
    }
    return kind(**arguments)
