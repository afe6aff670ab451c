"""Verbs that do nothing, for the tests of the door; run as a program, it is `mae-kit` with these verbs added."""

import logging
import sys
from abc import ABC
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mae_kit
from mae_kit.cli import main as cli
from mae_kit.errors import UserError

log = logging.getLogger("mae_kit.toys")


class Objective(ABC):
    """What is trained."""

    ratio: float
    weight: float


class Encoder:
    """The part that is kept.

    Args:
        width: Of the tokens.
    """

    def __init__(self, width: int = 4):
        self.width = width


class Hide(Objective):
    """Hide and predict.

    Args:
        encoder: Sees what is visible.
        ratio: Share that is hidden.
    """

    def __init__(self, encoder: Encoder, ratio: float = 0.75):
        import torch

        if ratio == 1:
            raise UserError("toy.ratio", "ratio 1 leaves nothing visible", "choose .75")
        self.encoder, self.ratio = encoder, ratio
        self.weight = torch.rand(()).item()


@dataclass
class Data:
    """The images.

    Attributes:
        path: Their folder.
        size: In pixels.
        kind: Where they come from.
    """

    path: Path
    size: int = 32
    kind: Literal["photos", "drawings"] = "photos"


def train(
    objective: Objective, data: Data, run: Path, steps: int | None = None, seed: int = 0, resume: bool = False
) -> dict[str, object]:
    """Train an objective.

    Args:
        objective: What is trained.
        data: On what.
        run: Its folder.
        steps: How long.
        seed: Of the weights.
        resume: Go on.
    """
    return {
        "ratio": objective.ratio,
        "weight": objective.weight,
        "path": str(data.path),
        "size": data.size,
        "run": str(run),
        "steps": steps,
        "resume": resume,
    }


def look(run: Path, images: list[str | Path], ratio: float | None = None, fast: bool = False) -> dict[str, object]:
    """Look at images.

    Args:
        run: A run.
        images: The images.
        ratio: Share that is hidden.
        fast: Whether to hurry.
    """
    log.info(f"looking at {images[0]}")
    print("printed by a library")
    return {"images": [str(image) for image in images], "ratio": ratio, "fast": fast}


def fail(how: Literal["user", "disk", "way", "bug", "interrupt", "signal", "step", "next"]) -> dict[str, Any]:
    """Fail.

    Args:
        how: In which way.
    """
    if how == "signal":
        sys.exit(143)
    if how == "step":
        return {"failed": 2}
    if how == "next":
        return {"next": "mae-kit look"}
    raise {
        "user": UserError("toy_commands.fail", "photos/ holds no images", "give another folder"),
        "disk": OSError(28, "No space left on device", "runs/a"),
        "way": FileExistsError(17, "File exists", "runs/a"),
        "bug": ZeroDivisionError("a bug"),
        "interrupt": KeyboardInterrupt(),
    }[how]


COMMANDS = {
    "train": cli.Command("train a toy", "Toys", "pretrain"),
    "look": cli.Command("look at a toy", "Toys"),
    "fail": cli.Command("break a toy", "Toys"),
}

RECIPE = """
objective:
  class_path: support.toy_commands.Hide
  init_args:
    encoder: {class_path: support.toy_commands.Encoder, init_args: {width: 8}}
    ratio: .5
data:
  path: photos
  size: 64
seed: 3
"""

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from support import toy_commands

    cli.COMMANDS.update(toy_commands.COMMANDS)
    for verb in toy_commands.COMMANDS:
        setattr(mae_kit, verb, getattr(toy_commands, verb))
    sys.exit(cli.main())
