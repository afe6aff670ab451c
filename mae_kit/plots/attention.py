"""Where the heads of an encoder look, and how far.

An attention map is [t t]: rows are queries and sum to 1; prefix tokens come first. l layers, a heads.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Num
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from torch import Tensor

from mae_kit.encoders.attention import attention_maps
from mae_kit.plots.encoder import FrozenEncoder
from mae_kit.plots.figures import show_heat, show_photo, tile_size, tiles

CHART_INCHES = 2.8


class Attention(NamedTuple):
    """Attention of the patch in the center, and the mean distance of all patches.

    Attributes:
        heads: Attention to each patch, by the heads of one layer.
        rollout: The same through all layers.
        distance: Mean attention distance in pixels, of all layers and heads.
    """

    heads: Float[Tensor, "b a y x"]
    rollout: Float[Tensor, "b y x"]
    distance: Float[Tensor, "l a"]


def attention_distance(
    maps: Float[Tensor, "b l a t t"], grid: tuple[int, int], patch_size: tuple[int, int]
) -> Float[Tensor, "l a"]:
    """Compute how far each head looks: the distance in pixels between the centers of a patch and those it attends to.

    It is averaged over attention weights, patches and images (Dosovitskiy et al., "An Image is Worth 16x16 Words",
    figure 7). Attention to prefix tokens, which have no place, is left out of the weights.
    """
    n = grid[0] * grid[1]
    weights = maps[..., -n:, -n:].float()
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return (weights * patch_distances(grid, patch_size).to(maps.device)).sum(dim=-1).mean(dim=(0, 3))


def patch_distances(grid: tuple[int, int], patch_size: tuple[int, int]) -> Float[Tensor, "n n"]:
    """Compute the distance in pixels between the centers of any two patches."""
    rows, columns = (torch.arange(count) * float(size) for count, size in zip(grid, patch_size, strict=True))
    centers = torch.cartesian_prod(rows, columns)
    return torch.cdist(centers, centers, compute_mode="donot_use_mm_for_euclid_dist")


def rollout(maps: Float[Tensor, "b l a t t"]) -> Float[Tensor, "b t t"]:
    """Compute how much of each input token reaches each output token (Abnar and Zuidema, "Quantifying Attention Flow in
    Transformers", ACL 2020): heads are averaged, the residual connection counts as a half, layers are multiplied.
    """
    mixed = (maps.float().mean(dim=2) + torch.eye(maps.shape[-1], device=maps.device)) / 2
    flow = mixed[:, 0]
    for layer in mixed[:, 1:].unbind(dim=1):
        flow = layer @ flow
    return flow


def attention_to(maps: Float[Tensor, "*m t t"], grid: tuple[int, int], patch: int) -> Float[Tensor, "*m y x"]:
    """Take the attention of one patch to all patches out of the maps; patches are numbered row by row."""
    n = grid[0] * grid[1]
    return maps[..., maps.shape[-1] - n + patch, -n:].unflatten(-1, grid)


def measure_attention(frozen: FrozenEncoder, images: Num[Tensor, "b c h w"], layer: int) -> Attention:
    """Compute attention image by image, since the maps of all layers are large; 1 is the first layer."""
    encoder, found = frozen.encoder, []
    center = encoder.grid[0] // 2 * encoder.grid[1] + encoder.grid[1] // 2
    for image in frozen.parts(images, 1):
        with torch.no_grad():
            maps = attention_maps(encoder, image)
        heads, flow = (attention_to(part, encoder.grid, center) for part in (maps[:, layer - 1], rollout(maps)))
        found.append((heads, flow, attention_distance(maps, encoder.grid, encoder.patch_size)))
    heads, flow, distance = zip(*found, strict=True)
    return Attention(torch.cat(heads).cpu(), torch.cat(flow).cpu(), torch.stack(distance).mean(dim=0).cpu())


def attention_figure(frozen: FrozenEncoder, images: Num[Tensor, "b c h w"], found: Attention, layer: int) -> Figure:
    """Draw input | each head | rollout, a row for each image, and below the distance of each head over the layers."""
    height, width = tile_size(frozen.encoder.image_size)
    b, a = found.heads.shape[:2]
    above = b * height + 0.6
    figure = Figure(figsize=(max(5.0, (a + 2) * width), above + CHART_INCHES), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[above, CHART_INCHES])
    top, bottom = parts
    top.suptitle(f"Attention of the framed patch: heads of layer {layer}, and all layers", fontsize=10)
    axes = tiles(top, b, ["input", *(f"head {head + 1}" for head in range(a)), "rollout"])
    for row, image, heads, flow in zip(axes, images, found.heads, found.rollout, strict=True):
        show_photo(row[0], image)
        for axis, heat in zip(row[1:], [*heads, flow], strict=True):
            show_heat(axis, image, heat)
        for axis in row:
            axis.add_patch(_frame(frozen))
    _draw_distance(bottom, found.distance, frozen)
    return figure


def _frame(frozen: FrozenEncoder) -> Rectangle:
    """Frame the patch in the center."""
    (height, width), (rows, columns) = frozen.encoder.patch_size, frozen.encoder.grid
    corner = (columns // 2 * width - 0.5, rows // 2 * height - 0.5)
    return Rectangle(corner, width, height, fill=False, edgecolor="#22d3ee", linewidth=1.2)


def _draw_distance(figure: SubFigure, distance: Float[Tensor, "l a"], frozen: FrozenEncoder) -> None:
    axis = figure.subplots()
    layers = np.arange(1, len(distance) + 1)
    uniform = float(patch_distances(frozen.encoder.grid, frozen.encoder.patch_size).mean())
    axis.axhline(uniform, color="0.5", linestyle="--", linewidth=1, label="uniform attention")
    dots = axis.plot(layers, distance.numpy(), "o", color="#3b82f6", clip_on=False)
    dots[0].set_label("one head")
    axis.plot(layers, distance.mean(dim=1).numpy(), color="#f59e0b", label="mean of the layer")
    axis.set(xlabel="layer", ylabel="pixels", title="Mean attention distance")
    axis.set_ylim(bottom=0)
    axis.set_xticks(layers[:: -(-len(layers) // 16)].tolist())
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
