"""A whole objective in one file, to reconstruct with or to continue from: weights, and what rebuilds the module."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file

from mae_kit.configured import build
from mae_kit.errors import UserError
from mae_kit.objectives import Objective
from mae_kit.tensor_file import read_header

FILE = "model.safetensors"
FORMAT = "mae_kit_model"
_FIX = f"give a run folder or its {FILE}"


class Model(NamedTuple):
    """An objective with its weights, and the statistics its images were normalized with (0..1, one a channel)."""

    objective: Objective
    mean: list[float]
    std: list[float]


def model_metadata(objective: Objective, mean: list[float], std: list[float]) -> dict[str, str]:
    """The header of the safetensors file."""
    content: dict[str, Any] = {"objective": objective.config, "mean": mean, "std": std}
    return {FORMAT: json.dumps(content)}  # one entry: several would be written in a random order


def objective_of(file: Path) -> str:
    """The name of the objective that one of these files holds."""
    config = json.loads(read_header(file, _FIX)[FORMAT])
    return config["objective"]["class_path"].rpartition(".")[2]


def load_model(path: Path, **changed: Any) -> Model:
    """Rebuild the objective of a run.

    Args:
        path: A run folder, or its model.safetensors.
        changed: Arguments of the objective that differ from training's, None for none: mask_ratio, mask.

    Raises:
        UserError: There is none, or it is a file of another kind, or of an objective that was another then.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            "model_file.load_model",
            f"no {FILE} in {path}",
            "give the folder of a pretraining run that has saved its model",
        )
    metadata = read_header(file, _FIX)
    if FORMAT not in metadata:
        raise UserError(
            "model_file.load_model",
            f"{file} has no decoder: it is not a whole model",
            f"give the run folder, or its {FILE}",
        )
    config = json.loads(metadata[FORMAT])
    given = {name: value for name, value in changed.items() if value is not None}
    unknown = given.keys() - config["objective"]["init_args"].keys()
    if unknown:
        kind = config["objective"]["class_path"].rpartition(".")[2]
        raise UserError(
            "model_file.load_model", f"{kind}, which {file} holds, has no {', '.join(sorted(unknown))}", "leave it out"
        )
    config["objective"]["init_args"] |= given
    objective = build(config["objective"])
    try:
        objective.load_state_dict(load_file(file), strict=True)
    except RuntimeError as error:
        what = f"{file} does not fit its objective as it is now ({' '.join(str(error).split())})"
        raise UserError(
            "model_file.load_model", what, "read it with the mae_kit that wrote it, or train anew"
        ) from error
    objective.set_statistics(config["mean"], config["std"])
    return Model(objective.eval(), config["mean"], config["std"])
