"""Weights, gradients and moments split across processes, for models that do not fit one device (PyTorch's FSDP2).

Checkpoints hold whole tensors, like those of DDP: a run resumes with any number of processes, split or not.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from mae_kit.training.process_group import RestartableDDP


class Sharded(RestartableDDP):
    """Trains a copy of the model that is split by blocks; the model itself gets the weights back at the end.

    Each block is gathered for its forward and its backward pass alone.
    """

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._whole: dict[str, nn.Module] = {}

    def configure_ddp(self) -> None:
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")  # nobody changes it
        module = self._module
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        for name, part in module.named_children():
            if any(parameter.requires_grad for parameter in part.parameters()):
                for tensor in (*part.parameters(), *part.buffers()):
                    distributed.broadcast(tensor.data, 0)
                self._whole[name] = part
                setattr(module, name, _split(deepcopy(part), mesh))
                part.cpu()

    @property
    def _module(self) -> Any:
        assert self.lightning_module is not None
        return self.lightning_module

    def on_train_end(self) -> None:
        self._gather()
        for name, part in self._whole.items():
            setattr(self._module, name, part)
        self._whole = {}

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Let the module be the whole model, on every process; all of them have to ask for it."""
        self._gather()
        parts = {name: getattr(self._module, name) for name in self._whole}
        for name, part in self._whole.items():
            setattr(self._module, name, part.to(self.root_device).train(self._module.training))
        try:
            yield
        finally:
            for name, part in parts.items():
                self._whole[name].cpu()
                setattr(self._module, name, part)

    def _gather(self) -> None:
        for name, part in self._whole.items():
            with torch.no_grad():
                tensors = {key: _gathered(tensor) for key, tensor in getattr(self._module, name).state_dict().items()}
            part.load_state_dict(tensors)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return self._first_only(super().lightning_module_state_dict())

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return self._first_only(super().optimizer_state(optimizer))

    def _first_only(self, state: dict[str, Any]) -> dict[str, Any]:
        """Whole tensors in the memory of the first process, which writes them."""

        def kept(tensor: DTensor) -> Tensor | None:
            whole = _gathered(tensor)
            return whole.cpu() if self.is_global_zero else None

        return tree_map_only(DTensor, kept, state)

    def load_model_state_dict(self, checkpoint: Any, strict: bool = True) -> None:
        """Also in the middle of a training, where weights go back to those of a checkpoint."""
        own = self._module.state_dict()
        whole = checkpoint["state_dict"].items()
        self._module.load_state_dict({name: _like(own.get(name), tensor) for name, tensor in whole}, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            split = {
                number: {name: _like(parameters[number], value) for name, value in values.items()}
                for number, values in state["state"].items()
            }
            optimizer.load_state_dict(state | {"state": split})


@contextmanager
def whole(trainer: Trainer) -> Iterator[None]:
    """Let the trainer's module be the whole model, on every process; all of them have to ask for it."""
    if isinstance(trainer.strategy, Sharded):
        with trainer.strategy.whole():
            yield
    else:
        yield


def whole_norm(norm: Tensor) -> Tensor:
    """A norm over split gradients, as an ordinary number."""
    return _gathered(norm)


def _split(part: nn.Module, mesh: Any) -> nn.Module:
    for name, blocks in part.named_modules():
        if name.rpartition(".")[2] == "blocks":
            for block in blocks.children():
                fully_shard(block, mesh=mesh)
    fully_shard(part, mesh=mesh)
    return part


def _gathered(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _like(own: Any, tensor: Any) -> Any:
    """A whole tensor, split as the one that it replaces is."""
    if isinstance(own, DTensor) and tensor.shape == own.shape:
        return distribute_tensor(tensor.to(own.device), own.device_mesh, own.placements)
    return tensor
