"""What a training step takes of a device, by part, and its operations: counted on tensors without memory."""

import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry

_FEW, _MORE = 2, 4  # images that are counted: a batch norm wants several


class Footprint(NamedTuple):
    """Memory in bytes, for AdamW, as torch allocates it without a compiler; and operations.

    Attributes:
        weights: Of the parameters and buffers.
        gradients: Of them.
        moments: The optimizer's two.
        fixed: What else a step needs at its peak, whatever the images: copies of the weights in half precision.
        of_image: What it needs at its peak for each image: activations, and what the backward pass makes of them.
        flops: Multiplications and additions of the matrix products of a step, forward and backward, for an image.
    """

    weights: float
    gradients: float
    moments: float
    fixed: float
    of_image: float
    flops: float

    def split(self, processes: int) -> "Footprint":
        """Of one of several processes that share weights, gradients and moments."""
        shared = {name: getattr(self, name) / processes for name in ("weights", "gradients", "moments")}
        return self._replace(**shared)

    def of_masks(self, masks: int) -> "Footprint":
        """Of so many masks of each image."""
        return self._replace(of_image=self.of_image * masks, flops=self.flops * masks)

    def parts(self, images: int) -> dict[str, float]:
        """Bytes at the peak of a step on so many images at once, by part."""
        parts = {"weights": self.weights, "gradients": self.gradients, "moments": self.moments}
        return parts | {"activations": self.fixed + self.of_image * images}

    def total(self, images: int) -> float:
        """Their sum."""
        return sum(self.parts(images).values())


def footprint(objective: Any, half: bool) -> Footprint:
    """Count a training step of an objective, which is left as it is; its weights may lie on the meta device.

    Args:
        objective: Where images are predicted from colors it has statistics.
        half: Under autocast to a type of two bytes.
    """
    (few, _), (more, flops) = (_step(objective, count, half) for count in (_FEW, _MORE))
    of_image = (more - few) / (_MORE - _FEW)
    weights = sum(_bytes(t) for t in (*objective.parameters(), *objective.buffers()))
    trained = sum(_bytes(p) for p in objective.parameters() if p.requires_grad)
    return Footprint(weights, trained, 2 * trained, max(0.0, few - of_image * _FEW), of_image, flops / _MORE)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _step(objective: nn.Module, images: int, half: bool) -> tuple[int, int]:
    """The bytes at the peak of a step, besides weights and gradients, and its operations."""
    encoder: Any = objective.encoder
    step = _Step(objective, half)
    with FakeTensorMode(allow_non_fake_inputs=True):
        given = {name: _fake(tensor) for name, tensor in (*step.named_buffers(), *step.named_parameters())}
        pixels = torch.empty(images, encoder.channels, *encoder.image_size)
        seeds = torch.arange(images)
        with _Meter([*given.values(), *(t.grad for t in given.values() if t.grad is not None)]) as meter:
            torch.func.functional_call(step, given, (pixels, seeds))
    return meter.peak, meter.flops


class _Step(nn.Module):
    """Forward and backward in one call: a block that is computed again needs the parameters that it had."""

    def __init__(self, objective: nn.Module, half: bool):
        super().__init__()
        self.objective, self.casts = objective, half

    def forward(self, images: Tensor, seeds: Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.casts):
            loss = self.objective(images, seeds).loss
        loss.backward()


def _fake(tensor: Tensor) -> Tensor:
    """A tensor of the same kind without memory, with its gradient, as in any step but the first."""
    made = torch.empty(tensor.shape, dtype=tensor.dtype).requires_grad_(tensor.requires_grad)
    if tensor.requires_grad:
        made.grad = torch.empty_like(made)
    return made


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors while they live, views once.

    Args:
        ignored: Tensors that are not counted.

    Attributes:
        now: Bytes that live.
        peak: The most there were.
    """

    def __init__(self, ignored: list[Tensor]):
        super().__init__()
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in ignored}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return tree_map_only(Tensor, self._count, func(*args, **(kwargs or {})))

    def _count(self, tensor: Tensor) -> Tensor:
        storage: Any = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, storage._cdata, storage.nbytes())
        return tensor

    def _drop(self, known: int, size: int) -> None:
        self._known.discard(known)
        self.now -= size


class _Meter(LiveBytes):
    """Counts operations, too, as `torch.utils.flop_counter` has them.

    Attributes:
        flops: Multiplications and additions.
    """

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if count := flop_registry.get(func.overloadpacket):
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        return out
