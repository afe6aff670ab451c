"""A pretraining step of a recipe's objective, on images in memory."""

from collections.abc import Callable
from typing import Any

import torch
from turns import Turn

from mae_kit.classes.configured import build
from mae_kit.encoders.attention import write_out
from mae_kit.files.recipe_file import find_recipe, read_recipe
from mae_kit.training.memory import keep_freed_memory
from mae_kit.training.optimizer import build_optimizer, parameter_groups
from mae_kit.training.precision import fused_attention_is_slow, resolve_with_reason


def step_of(name: str, batch: int, threads: int, wrap: Callable[[Any], Any] = lambda model: model) -> Turn:
    """A training step of the recipe's objective, which is called as `wrap` returns it."""
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    objective = build(read_recipe(find_recipe(name, "pretrain"))["objective"]).train()
    channels = objective.encoder.channels
    objective.set_statistics([0.5] * channels, [0.25] * channels)
    images = torch.randn(batch, channels, *objective.encoder.image_size)
    bf16 = resolve_with_reason("auto")[0] != "32-true"
    if fused_attention_is_slow("auto"):
        write_out(objective)
    model = wrap(objective)
    optimizer = build_optimizer(parameter_groups(objective, 0.05))
    for group in optimizer.param_groups:
        group["lr"] = 1e-4

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(images).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step
