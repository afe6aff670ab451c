"""Images of reconstructions: what a model sees and what it predicts, a row for each image."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mae_kit.data.transforms.augment import Normalize
from mae_kit.encoders.patches import grid_of, patchify, unpatchify
from mae_kit.files.durable import replacing
from mae_kit.objectives import Objective

COLUMNS = ("input", "visible", "prediction", "combined")
GRAY = 0.5  # of patches that are hidden or not predicted
PAPER = 255
INK = 40
TILE = 96  # minimum of a tile's shorter side in pixels
GAP = 4  # pixels between tiles; four times that between panels
STRETCHED = 1, 99  # percentiles of images of more than 8 bits that become black and white
ROWS_IN_ONE_PANEL = 6  # more rows than this are split into two panels


def draw_reconstructions(
    objective: Objective,
    normalize: Normalize,
    images: UInt8[Tensor, "b c h w"] | Float[Tensor, "b c h w"],
    seeds: Int64[Tensor, " b"],
    rgb: Sequence[int] = (),
) -> UInt8[np.ndarray, "H W 3"]:
    """Hide patches, predict them, and draw the result; see `reconstruction_grid`.

    Args:
        objective: Predicts.
        normalize: As in its pretraining.
        images: Values from 0 to 255, fp32 those of images of more than 8 bits.
        seeds: Of the masks.
        rgb: Three channels, from 0, that are shown as red, green and blue.
    """
    seen = normalize(images)
    hidden, pixels = objective.reconstruct(seen, seeds)
    target = objective.target_pixels(seen)
    size, show = objective.encoder.patch_size, _viewer(images, rgb)
    predicted, shown = patchify(show(normalize.inverse(pixels)), size), show(images.float() / 255)
    return reconstruction_grid(
        shown, hidden, predicted, size, None if target is seen else show(normalize.inverse(target))
    )


def _viewer(images: Tensor, rgb: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """Chooses channels of images in 0..1; those of more than 8 bits are stretched between percentiles of the inputs."""
    channels = list(rgb) or list(range(images.shape[1]))
    if not images.is_floating_point():
        return lambda shown: shown[:, channels].clamp(0, 1)
    values = (images[:, channels] / 255).transpose(0, 1).flatten(1)
    low, high = (torch.from_numpy(np.percentile(values.cpu(), end, axis=1)).to(values) for end in STRETCHED)
    bottom, span = low[:, None, None], (high - low).clamp(min=1e-6)[:, None, None]
    return lambda shown: ((shown[:, channels] - bottom) / span).clamp(0, 1)


def reconstruction_grid(
    images: Float[Tensor, "b c h w"],
    hidden: Bool[Tensor, "b n"],
    prediction: Float[Tensor, "b n q"],
    patch_size: int | tuple[int, int],
    target: Float[Tensor, "b c h w"] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw input | visible patches, the others gray | prediction | both combined.

    If the target is not the input: input | visible | prediction | target.

    Only the hidden patches of the prediction are shown: the loss does not include the others.

    Args:
        images: [b c h w], 0..1, not normalized. One channel is shown gray; of more than three the first three.
        hidden: [b n], True = hidden.
        prediction: [b n p*p*c], 0..1 pixels, of every patch.
        patch_size: Pixels a side of a patch, or (rows, columns).
        target: [b c h w], 0..1, what the prediction should be, where that is not the input.

    Returns:
        RGB picture; images smaller than 96 pixels are enlarged by a whole factor, without smoothing.
    """
    names: tuple[str, ...] = COLUMNS
    shown: tuple[Tensor, ...] = _columns(images, hidden, prediction, patch_size)
    if target is not None:
        names, shown = (*names[:-1], "target"), (*shown[:-1], target)
    return tile_grid(dict(zip(names, shown, strict=True)))


def tile_grid(columns: dict[str, Float[Tensor, "b c h w"]]) -> UInt8[np.ndarray, "H W 3"]:
    """Columns of images in 0..1, each under its name; see `reconstruction_grid`."""
    names, tiles = list(columns), np.stack([_rgb(column) for column in columns.values()], axis=1)
    factor = -(-TILE // min(tiles.shape[2:4]))
    tiles = tiles.repeat(factor, axis=2).repeat(factor, axis=3)
    half = len(tiles) if len(tiles) <= ROWS_IN_ONE_PANEL else -(-len(tiles) // 2)
    panels = [_panel(tiles[start : start + half], half, names) for start in range(0, len(tiles), half)]
    between = np.full((len(panels[0]), 3 * GAP, 3), PAPER, np.uint8)
    return np.concatenate([part for panel in panels for part in (between, panel)][1:], axis=1)


def save_png(path: Path, array: UInt8[np.ndarray, "H W 3"]) -> None:
    """Write an image atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as making:
        Image.fromarray(array).save(making, format="PNG", optimize=True)


def _columns(
    images: Tensor, hidden: Tensor, prediction: Tensor, patch_size: int | tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    size = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    grid = grid_of((images.shape[2], images.shape[3]), size)
    patches, at = patchify(images, size), hidden.unsqueeze(-1)
    predicted, gray = prediction.to(patches.dtype), torch.full_like(patches, GRAY)
    masked, asked = torch.where(at, gray, patches), torch.where(at, predicted, gray)
    pasted = torch.where(at, predicted, patches)
    return images, unpatchify(masked, size, grid), unpatchify(asked, size, grid), unpatchify(pasted, size, grid)


def _rgb(images: Tensor) -> UInt8[np.ndarray, "b h w 3"]:
    """0..1 [b c h w] -> uint8 [b h w 3]; two channels show their first, as one channel does."""
    three = images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)
    levels = (three.detach().float().nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).cpu().numpy()


def _panel(tiles: UInt8[np.ndarray, "b k h w 3"], rows: int, names: list[str]) -> UInt8[np.ndarray, "H W 3"]:
    """Put a header above rows of tiles, with room for `rows` of them."""
    b, k, h, w, _ = tiles.shape
    framed = np.pad(tiles, ((0, rows - b), (0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=PAPER)
    body = framed.transpose(0, 2, 1, 3, 4).reshape(rows * (h + GAP), k * (w + GAP), 3)
    return np.pad(np.concatenate([_header(w + GAP, names), body]), ((0, 0), (GAP, 0), (0, 0)), constant_values=PAPER)


def _header(width: int, names: list[str]) -> UInt8[np.ndarray, "H W 3"]:
    """Draw the names of the columns, each centered in `width` pixels."""
    size = min(max(12, width // 8), 28)
    picture = Image.new("RGB", (width * len(names), size * 2), (PAPER,) * 3)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    for i, name in enumerate(names):
        draw.text(((i + 0.5) * width, size), name, fill=(INK,) * 3, font=font, anchor="mm")
    return np.asarray(picture)
