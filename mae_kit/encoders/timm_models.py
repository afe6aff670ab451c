"""Make timm's models by name; what timm rejects becomes a UserError."""

from collections.abc import Sequence
from typing import Any

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mae_kit.errors import UserError

_FETCHED = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
MOST_BLOCKS = 1000


def create(name: str, model_args: dict[str, Any], examples: str) -> Any:
    """Make a timm model without its head.

    Args:
        name: timm's name.
        model_args: timm's arguments that differ from the name's own.
        examples: Pattern of names to suggest.

    Raises:
        UserError: timm has no such name, or does not build it with these arguments.
    """
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_patch')[0]}*")[:3] or timm.list_models(examples)[:3]
        raise UserError(
            "encoder.name.unknown", f"encoder name {name!r} is not in timm", f"choose, for example, {', '.join(near)}"
        )
    return build(name, model_args, "change the encoder's arguments", num_classes=0)


def build(name: str, given: dict[str, Any], fix: str, **further: Any) -> Any:
    """Call `timm.create_model` with a name that timm has; nothing is fetched or read from a disk that a file asks for.

    Args:
        name: timm's name.
        given: timm's arguments, listed in the error where timm rejects them.
        fix: What the user can do then.
        further: Arguments that always fit.

    Raises:
        UserError: timm has no such name, as `hf-hub:OWNER/NAME`, does not build it, for whatever reason, or has no
            such weights.
    """
    try:
        _check(name, given)
        return timm.create_model(name, **given, **further)
    except (TypeError, ValueError, AssertionError, RuntimeError, LookupError, ArithmeticError, OSError) as error:
        listed = ", ".join(f"{key}={value}" for key, value in given.items())
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            "encoder.model_args.refused", f"timm does not build {name} with {listed} ({reason})", fix
        ) from error


def _check(name: str, given: dict[str, Any]) -> None:
    """What `timm.create_model` would do for a file that no file may ask for."""
    if not timm.is_model(name):
        raise ValueError("timm has no such model")
    if fetched := sorted(_FETCHED & given.keys()):
        raise ValueError(f"{fetched[0]} is not an argument of a model")
    depth = given.get("depth", given.get("depths"))
    blocks = [depth] if isinstance(depth, int) else depth if isinstance(depth, list | tuple) else []
    if any(not (isinstance(count, int) and 0 < count <= MOST_BLOCKS) for count in blocks):
        raise ValueError(f"1 to {MOST_BLOCKS} blocks can be trained")


def attention_heads(model: nn.Module) -> list[int]:
    """Count the heads of each attention layer, first block first."""
    found = (getattr(part, "num_heads", getattr(part, "heads", None)) for part in model.modules())  # Hiera: heads
    return [heads for heads in found if isinstance(heads, int)]


def stochastic_depth(rate: float) -> dict[str, float]:
    """Give timm's argument for stochastic depth.

    Args:
        rate: Drop path rate of the last block, 0 to 1; it grows linearly from 0 at the first.

    Raises:
        UserError: The rate is outside 0 to 1.
    """
    if not 0 <= rate <= 1:
        raise UserError("encoder.drop_path", f"the encoder's drop_path is {rate:g}", "give a number from 0 to 1")
    return {"drop_path_rate": rate}


def pair(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    """Expand a size to height and width; one number is a square.

    Raises:
        UserError: It is not one or two positive integers.
    """
    sides = [size] * 2 if isinstance(size, int) else [int(side) for side in size]
    if len(sides) != 2 or min(sides) < 1:
        raise UserError("encoder.img_size.form", f"img_size is {size}", "give one number, or height and width")
    return sides[0], sides[1]


def block_tokens(model: Any, images: Float[Tensor, "b c h w"], numbers: Sequence[int]) -> list[Float[Tensor, "b t d"]]:
    """Tokens after some of the blocks, from 1 and ascending, each through the final norm."""
    found = model.forward_intermediates(
        images,
        [number - 1 for number in numbers],
        return_prefix_tokens=True,
        norm=True,
        stop_early=True,
        output_fmt="NLC",
        intermediates_only=True,
    )
    return [torch.cat([each[1], each[0]], dim=1) if model.num_prefix_tokens else each for each in found]
