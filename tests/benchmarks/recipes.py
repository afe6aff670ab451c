"""Pretraining steps of several recipes' objectives, in turn, on images in memory: what an objective costs.

python tests/benchmarks/recipes.py mae_vit_b16 cross_mae_vit_b16 --batch 4
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from command import run
from turns import Turn, Way, table, take_turns

from mae_kit.classes.configured import build
from mae_kit.encoders.attention import write_out
from mae_kit.files.recipe_file import find_recipe, read_recipe
from mae_kit.training.memory import keep_freed_memory
from mae_kit.training.optimizer import build_optimizer, parameter_groups
from mae_kit.training.precision import fused_attention_is_slow, resolve_with_reason


def recipes(names: list[str], batch: int = 64, steps: int = 10, threads: int = 0) -> dict[str, Any]:
    """Time forward, backward and AdamW of each.

    Args:
        names: Pretraining recipes; the first is the reference.
        batch: Images a step.
        steps: Measured steps of each.
        threads: Of torch in each process; 0 leaves its default.

    Returns:
        A row of the table for each recipe.
    """
    print(resolve_with_reason("auto")[1])
    ways = [Way(name, partial(step_of, name, batch, threads), batch) for name in names]
    take_turns(ways, steps)
    return {"precision": resolve_with_reason("auto")[0], "rows": table(ways)}


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


if __name__ == "__main__":
    run(recipes)
