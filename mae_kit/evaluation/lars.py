"""LARS as MAE's linear probe has it (You et al., "Large Batch Training of Convolutional Networks", 2017)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class Lars(Optimizer):
    """Gradient descent with momentum, the length of each matrix's step in proportion to the matrix.

    timm's takes the norms of gradient and decay apart, where the original takes that of their sum; and it cannot
    leave vectors alone without a group of their own.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate.
        weight_decay: Of matrices alone.
        momentum: Of the step, in which the learning rate is not.
        trust: Fraction of its own length that a matrix moves at a learning rate of 1, without momentum.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, weight_decay: float = 0.0, momentum: float = 0.9, trust: float = 0.001
    ):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "trust": trust})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        change = parameter.grad
        assert change is not None
        if parameter.ndim > 1:
            change = change.add(parameter, alpha=group["weight_decay"])
            ratio = group["trust"] * parameter.norm() / change.norm()
            change = change * torch.where(ratio.isfinite() & (ratio > 0), ratio, 1)
        state = self.state[parameter]
        state["momentum"] = change + group["momentum"] * state.get("momentum", 0)
        parameter.sub_(group["lr"] * state["momentum"])
