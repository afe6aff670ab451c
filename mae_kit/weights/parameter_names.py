"""The key report: what is in a file and not in a model, and the other way round."""

from collections.abc import Mapping

from torch import Tensor

from mae_kit.errors import UserError

Tensors = Mapping[str, Tensor]
SHOWN = 3


def differences(tensors: Tensors, own: Tensors) -> dict[str, str]:
    """What does not fit, by name: tensors of a file against those of a model."""
    shapes, wanted = ({k: list(v.shape) for k, v in side.items()} for side in (tensors, own))
    found = {name: f"{name} is unknown to the model" for name in shapes if name not in wanted}
    found |= {name: f"{name} is not in the file" for name in wanted if name not in shapes}
    both = [name for name in shapes if name in wanted and shapes[name] != wanted[name]]
    return found | {name: f"{name} is {shapes[name]} in the file, {wanted[name]} in the model" for name in both}


def refuse(file: str, differences: Mapping[str, str], fix: str = "give the model that it was trained as") -> None:
    """Stop if there is any difference.

    Raises:
        UserError: Names the first ones.
    """
    if differences:
        shown = "; ".join(list(differences.values())[:SHOWN])
        more = f"; and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise UserError("parameter_names.refuse", f"{file} does not fit the model: {shown}{more}", fix)
