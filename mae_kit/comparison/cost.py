"""The cost of a training: its time, and its operations, which are the same on every machine."""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mae_kit.classes.configured import build
from mae_kit.errors import UserError
from mae_kit.objectives import Objective
from mae_kit.objectives.igpt import classify_and_predict
from mae_kit.reports.folder import read_batch_size, read_config
from mae_kit.tasks.classifier import unfreeze_color_head
from mae_kit.tasks.load import load_trained, trained_kind
from mae_kit.training.freezing import freeze_below
from mae_kit.training.metrics import clock, read_metrics

Shape = tuple[int, ...]
IMAGES = 2  # a batch norm needs more than one


def pretraining_cost(run: Path) -> dict[str, float | None]:
    """Return the `seconds`, `core_seconds` of all cores, `steps`, `images` seen and `flops` of a pretraining so far.

    Args:
        run: Its folder. Empty where it has not started; `flops` is None where the model cannot be built, as where a
            BEiT tokenizer is gone.
    """
    return _cost(run, _flops_of_objective)


def finetuning_cost(run: Path) -> dict[str, float | None]:
    """Return the same of a complete fine-tuning; empty otherwise."""
    return _cost(run, _flops_of_trained) if trained_kind(run) else {}


def _cost(run: Path, flops_of: Callable[[Path], float]) -> dict[str, float | None]:
    rows = read_metrics(run)
    if not rows:
        return {}
    steps = rows[-1]["step"]
    images = steps * read_batch_size(run)
    try:
        flops = images * flops_of(run)
    except UserError:
        flops = None
    clocks = {name: clock(rows, name) for name in ("seconds", "core_seconds")}
    return clocks | {"steps": steps, "images": images, "flops": flops}


def encoder_of(run: Path) -> dict[str, Any] | None:
    """Return class and arguments of the encoder that a run trains; None if it has not started."""
    config = read_config(run)
    return config["objective"]["init_args"]["encoder"] if config else None


@cache
def _flops_of_objective(run: Path) -> float:
    return flops_per_image(build(read_config(run)["objective"]))


@cache
def _flops_of_trained(run: Path) -> float:
    trained, recipe = load_trained(run), read_config(run)
    model, backbone = trained.model.cpu(), trained.backbone
    if recipe.get("blocks") is not None:
        freeze_below(backbone, recipe["blocks"])
    model.train()  # patches are dropped, where they are, in training alone
    images = torch.zeros(IMAGES, trained.config.channels, *trained.config.size)
    if recipe.get("generative"):
        unfreeze_color_head(backbone)
        return _step(lambda: sum(part.sum() for part in classify_and_predict(backbone, images, torch.arange(IMAGES))))
    return _step(lambda: sum(part.sum() for part in tree_leaves(model(images)) if _is_real(part)))


def _is_real(part: Any) -> bool:
    """Whether it is a tensor that may have a gradient: a detector's output also names the size of its grid."""
    return torch.is_tensor(part) and part.is_floating_point()


def flops_per_image(objective: Objective) -> float:
    """Count multiplications and additions of the matrix products of a training step; data loading is not included."""
    channels = objective.encoder.channels
    objective.set_statistics([0.5] * channels, [0.5] * channels)
    objective.load_state_dict(objective.state_dict())  # a palette of any colors will do
    images = torch.zeros(IMAGES, channels, *objective.encoder.image_size)
    return _step(lambda: objective(images, torch.arange(IMAGES)).loss)


def _step(loss: Callable[[], Any]) -> float:
    """Count the operations per image of a forward pass, and of a backward pass through all that has a gradient.

    Attention is unfused, since not every fused kernel is counted by every torch.
    """
    convolutions = {torch.ops.aten.convolution_backward: _backward_of_convolution}
    with FlopCounterMode(display=False, custom_mapping=convolutions) as counter, sdpa_kernel(SDPBackend.MATH):
        loss().backward()
    return counter.get_total_flops() / IMAGES


def _backward_of_convolution(gradient: Shape, _: Shape, weight: Shape, *more: Any, **kept: Any) -> int:
    """Count a forward pass for each gradient; torch's own count ignores groups."""
    of_input, of_weight, _of_bias = more[-1]
    return 2 * math.prod(gradient) * math.prod(weight[1:]) * (of_input + of_weight)
