"""Modules that remember their constructor's arguments, so that a recipe or a file can rebuild them."""

import importlib
import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import nn

from mae_kit.classes.own_code import find_class
from mae_kit.errors import UserError

Config = dict[str, Any]
_FIX = "give a class of mae_kit, or pass trusted=True for a file of your own"


class Configured(nn.Module):
    """A module that records the arguments of its constructor: plain values or other configured modules.

    Attributes:
        init_args: The arguments by name, defaults included.
    """

    init_args: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _recording(cls.__init__)

    @property
    def config(self) -> Config:
        """What rebuilds the module, without its weights: `class_path` and `init_args`, nested as in a recipe."""
        arguments = {k: v.config if isinstance(v, Configured) else v for k, v in self.init_args.items()}
        return {"class_path": f"{type(self).__module__}.{type(self).__qualname__}", "init_args": arguments}

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draw all parameters again, in place, as the constructor draws them; buffers stay as they are."""
        for own, new in zip(self.parameters(), _again(self).parameters(), strict=True):
            own.copy_(new)


def _recording(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)
    catch_all = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)

    @wraps(init)
    def record(self: Configured, *args: Any, **kwargs: Any) -> None:
        if "init_args" not in self.__dict__:  # the outermost constructor: those it calls see other arguments
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            further = bound.arguments.pop(catch_all) if catch_all else {}
            self.__dict__["init_args"] = dict(list(bound.arguments.items())[1:]) | further
        init(self, *args, **kwargs)

    return record


def _again(module: Configured) -> Configured:
    arguments = {k: _again(v) if isinstance(v, Configured) else v for k, v in module.init_args.items()}
    return type(module)(**arguments)


def build(config: Config, trusted: bool = False) -> Any:
    """Make the module that a `config` describes, with fresh weights.

    Args:
        config: `class_path` and `init_args`, nested where an argument is a module.
        trusted: Allow classes outside mae_kit. A file from elsewhere must not choose what code runs.

    Raises:
        UserError: The class is not mae_kit's and the config is not trusted, or it is no configured module.
    """
    kind = _class(config["class_path"], trusted)
    arguments = {
        name: build(value, trusted) if isinstance(value, dict) and "class_path" in value else value
        for name, value in config["init_args"].items()
    }
    return kind(**arguments)


def _class(path: str, trusted: bool) -> type[Configured]:
    module = path.rpartition(".")[0]
    if trusted and module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError("config.class_path.import", f"cannot import {path} ({error})", _FIX) from error
    kind = find_class(path)
    if not issubclass(kind, Configured):
        raise UserError("config.class_path.module", f"{path} is not a module that mae_kit can rebuild", _FIX)
    return kind
