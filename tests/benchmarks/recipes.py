"""Pretraining steps of several recipes' objectives, in turn, on images in memory: what an objective costs.

python tests/benchmarks/recipes.py mae_vit_b16 cross_mae_vit_b16 --batch 4
"""

from functools import partial
from typing import Any

from command import run
from step import step_of
from turns import Way, table, take_turns

from mae_kit.training.precision import resolve_with_reason


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


if __name__ == "__main__":
    run(recipes)
