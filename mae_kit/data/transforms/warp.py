"""RandAugment's geometry: one affine map a row, all rows in one pass. Pure functions.

A map goes from a place in the output to the place in the input, both in units where the image spans -1 to 1.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


def warp(
    images: Float[Tensor, "r c h w"], maps: Float[Tensor, "r 2 3"], fill: Float[Tensor, "1 c 1 1"]
) -> Float[Tensor, "r c h w"]:
    """Bicubic, clamped to [0, 1], and filled where a place comes from outside the image, as Pillow does it."""
    grid = affine_grid(maps, list(images.shape), align_corners=False)
    warped = grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False).clamp_(0, 1)
    inside = (grid.abs() <= 1).all(dim=-1)[:, None]
    return torch.where(inside, warped, fill.to(warped.dtype))


def geometry_maps(chosen: Int64[Tensor, " r"], signed: Float[Tensor, " r"], aspect: float) -> Float[Tensor, "r 2 3"]:
    """The map of each row.

    Args:
        chosen: Place in GEOMETRY.
        signed: Strength in [-1, 1].
        aspect: Height over width of the images.
    """
    candidates = torch.stack([operation(signed, aspect) for operation in GEOMETRY.values()])
    return candidates[chosen, torch.arange(len(chosen))]


def _maps(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor) -> Float[Tensor, "r 2 3"]:
    """Maps from an output place to the input's, in units where the image spans -1 to 1."""
    return torch.stack([torch.stack([a, b, c], dim=1), torch.stack([d, e, f], dim=1)], dim=1)


def _rotate(signed: Tensor, aspect: float) -> Tensor:
    """Up to 30 degrees, counter-clockwise."""
    angle, zero = torch.deg2rad(30 * signed), torch.zeros_like(signed)
    cos, sin = angle.cos(), angle.sin()
    return _maps(cos, -sin * aspect, zero, sin / aspect, cos, zero)


def _shear_x(signed: Tensor, aspect: float) -> Tensor:
    """Up to .3 pixels a row, the top row staying where it is."""
    one, zero, slope = torch.ones_like(signed), torch.zeros_like(signed), 0.3 * signed * aspect
    return _maps(one, slope, slope, zero, one, zero)


def _shear_y(signed: Tensor, aspect: float) -> Tensor:
    one, zero, slope = torch.ones_like(signed), torch.zeros_like(signed), 0.3 * signed / aspect
    return _maps(one, zero, zero, slope, one, slope)


def _translate_x(signed: Tensor, aspect: float) -> Tensor:
    """Up to .45 of the width."""
    one, zero = torch.ones_like(signed), torch.zeros_like(signed)
    return _maps(one, zero, 0.9 * signed, zero, one, zero)


def _translate_y(signed: Tensor, aspect: float) -> Tensor:
    one, zero = torch.ones_like(signed), torch.zeros_like(signed)
    return _maps(one, zero, zero, zero, one, 0.9 * signed)


GEOMETRY: dict[str, Callable[[Tensor, float], Tensor]] = {
    "Rotate": _rotate,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateXRel": _translate_x,
    "TranslateYRel": _translate_y,
}
"""RandAugment's geometry, by timm's names: (signed strength a row, height / width) -> maps [r 2 3]."""
