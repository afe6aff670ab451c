"""Where an encoder looks in your images, and how far."""

import logging
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from torch import Tensor

from mae_kit.data.remote.filesystem import Place
from mae_kit.encoders.attention import attention_maps
from mae_kit.errors import UserError
from mae_kit.plots.attention import attention_distance, gaze, patch_distances, rollout
from mae_kit.plots.encoder import Eye
from mae_kit.plots.figures import must_be_png, save_figure, show_heat, show_photo, tile_size, tiles
from mae_kit.training.config import must_be_positive

log = logging.getLogger(__name__)

CHART_INCHES = 2.8


Query = Literal["center", "class"]


class Looks(NamedTuple):
    """Where an encoder looks: each head of one layer, all layers together; and how far each head of each layer does.

    Attributes:
        heads: Attention of the query to each patch.
        flow: The same of the rollout.
        distance: Pixels, l layers and a heads.
    """

    heads: Float[Tensor, "b a y x"]
    flow: Float[Tensor, "b y x"]
    distance: Float[Tensor, "l a"]


def attention(
    encoder: Path,
    images: Place,
    out: Path = Path("attention.png"),
    layer: int | None = None,
    query: Query = "center",
    count: int = 4,
) -> dict[str, Any]:
    """Draw where an encoder looks in some images, head by head and through all layers, and how far each head looks.

    Args:
        encoder: A pretraining run, or its encoder.safetensors.
        images: An image, a folder of images or of shards, or a tar; any size.
        out: The picture to write, PNG.
        layer: Whose heads are drawn, 1 is the first; by default the last.
        query: Who looks: the patch in the center, or the class token, for which masked pretraining has no task.
        count: How many images at most, spread evenly over them.

    Returns:
        The picture's path, and for each layer the mean attention distance of each head in pixels.

    Raises:
        UserError: No encoder, no images, no such layer, or no class token.
    """
    must_be_positive({"count": count})
    must_be_png(out)
    eye = Eye(encoder)
    layer = _existing(eye, layer, query)
    pixels, _ = eye.load(images, count)
    looks = look(eye, pixels, layer, query)
    save_figure(out, attention_figure(eye, pixels, looks, layer, query))
    near, far = looks.distance[0].mean(), looks.distance[-1].mean()
    log.info(f"{out}: {len(pixels)} images; heads look {near:.1f} pixels far in the first layer, {far:.1f} in the last")
    return {"picture": str(out), "images": len(pixels), "layer": layer, "distance": looks.distance.tolist()}


def look(eye: Eye, images: UInt8[Tensor, "b c h w"], layer: int, query: Query) -> Looks:
    """One image at a time: the maps of all layers are large."""
    encoder, seen = eye.vit, []
    token = None if query == "class" else _center(encoder.grid)
    for image in eye.parts(images, 1):
        with torch.no_grad():
            maps = attention_maps(encoder, image)
        heads, flow = gaze(maps[:, layer - 1], encoder.grid, token), gaze(rollout(maps), encoder.grid, token)
        seen.append((heads, flow, attention_distance(maps, encoder.grid, encoder.patch_size)))
    heads, flow, distance = zip(*seen, strict=True)
    return Looks(torch.cat(heads).cpu(), torch.cat(flow).cpu(), torch.stack(distance).mean(dim=0).cpu())


def attention_figure(eye: Eye, images: UInt8[Tensor, "b c h w"], looks: Looks, layer: int, query: Query) -> Figure:
    """Input | each head | rollout, a row an image, and below the distance of each head over the layers."""
    height, width = tile_size(eye.vit.image_size)
    b, a = looks.heads.shape[:2]
    above = b * height + 0.6
    figure = Figure(figsize=(max(5.0, (a + 2) * width), above + CHART_INCHES), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[above, CHART_INCHES])
    top, bottom = parts
    who = "the framed patch" if query == "center" else "the class token"
    top.suptitle(f"Where {who} looks: heads of layer {layer}, and all layers", fontsize=10)
    axes = tiles(top, b, ["input", *(f"head {head + 1}" for head in range(a)), "rollout"])
    for row, image, heads, flow in zip(axes, images, looks.heads, looks.flow, strict=True):
        show_photo(row[0], image)
        for axis, heat in zip(row[1:], [*heads, flow], strict=True):
            show_heat(axis, image, heat)
        if query == "center":
            for axis in row:
                axis.add_patch(_frame(eye))
    _draw_distance(bottom, looks.distance, eye)
    return figure


def _existing(eye: Eye, layer: int | None, query: Query) -> int:
    depth = len(eye.vit.model.blocks)
    layer = depth if layer is None else layer
    if not 1 <= layer <= depth:
        raise UserError("attention.existing", f"the encoder has no layer {layer}", f"give --layer 1 to {depth}")
    if query == "class" and eye.vit.model.cls_token is None:
        raise UserError("attention.existing", "the encoder has no class token", "leave --query out")
    return layer


def _center(grid: tuple[int, int]) -> int:
    return grid[0] // 2 * grid[1] + grid[1] // 2


def _frame(eye: Eye) -> Rectangle:
    """Around the patch in the center."""
    (height, width), (rows, columns) = eye.vit.patch_size, eye.vit.grid
    corner = (columns // 2 * width - 0.5, rows // 2 * height - 0.5)
    return Rectangle(corner, width, height, fill=False, edgecolor="#22d3ee", linewidth=1.2)


def _draw_distance(figure: SubFigure, distance: Float[Tensor, "l a"], eye: Eye) -> None:
    axis = figure.subplots()
    layers = np.arange(1, len(distance) + 1)
    uniform = float(patch_distances(eye.vit.grid, eye.vit.patch_size).mean())
    axis.axhline(uniform, color="0.5", linestyle="--", linewidth=1, label="looking everywhere alike")
    dots = axis.plot(layers, distance.numpy(), "o", color="#3b82f6")
    dots[0].set_label("a head")
    axis.plot(layers, distance.mean(dim=1).numpy(), color="#f59e0b", label="mean of the layer")
    axis.set(xlabel="layer", ylabel="pixels", title="Mean attention distance")
    axis.set_ylim(bottom=0)
    axis.set_xticks(layers[:: -(-len(layers) // 16)].tolist())
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
