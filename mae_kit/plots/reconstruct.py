"""What a pretrained model makes of your images."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from mae_kit.data.loading.images import load_images
from mae_kit.data.remote.filesystem import Place
from mae_kit.data.transforms.augment import Normalize
from mae_kit.errors import UserError
from mae_kit.masking import MaskKind
from mae_kit.objectives import MAE, Objective
from mae_kit.patches import patchify
from mae_kit.plots.figures import must_be_png, save_figure
from mae_kit.plots.losses import loss_map, losses_figure
from mae_kit.plots.ratios import over_ratios, ratios_figure
from mae_kit.plots.reconstructions import reconstruction_grid, save_png
from mae_kit.randomness import combine
from mae_kit.training.config import must_be_positive
from mae_kit.weights.native import load_model

log = logging.getLogger(__name__)

Show = Literal["prediction", "ratios", "losses"]
DRAWS = 32


def picture(
    objective: Objective, normalize: Normalize, images: UInt8[Tensor, "b c h w"], keys: Int64[Tensor, " b"]
) -> np.ndarray:
    """Input, hidden, prediction, and this pasted, or the target where it is not the input: uint8 [H W 3]."""
    seen = normalize(images)
    hidden, pixels = objective.reconstruct(seen, keys)
    target = objective.target_pixels(seen)
    predicted, size = normalize.inverse(pixels).clamp(0, 1), objective.encoder.patch_size
    shown = None if target is seen else normalize.inverse(target).clamp(0, 1)
    return reconstruction_grid(images.float() / 255, hidden, patchify(predicted, size), size, shown)


def reconstruct(
    run: Path,
    images: Place,
    out: Path = Path("grid.png"),
    show: Show = "prediction",
    mask_ratio: float | None = None,
    mask: MaskKind | None = None,
    seed: int = 0,
    count: int = 8,
) -> dict[str, Any]:
    """Hide most of some images and draw what the model predicts: input | hidden | prediction | pasted together.

    Where it predicts something else than pixels, as BEiT its codes, the last column is what it should have predicted.

    Args:
        run: A pretraining run, or its model.safetensors.
        images: An image, a folder of images or of shards, a tar, or a URL of shards; any size.
        out: The picture to write, PNG.
        show: The prediction; or the predictions with 10 to 95% hidden, side by side (ratios); or the loss of each
            patch, averaged over 32 draws of what is hidden (losses).
        mask_ratio: Share of the patches to hide; by default as in training.
        mask: random, block or grid; by default as in training, but of ratios at random where that was a grid.
        seed: Chooses what is hidden.
        count: How many images at most, spread evenly over them.

    Returns:
        The picture's path, and the mean loss on the hidden patches; of ratios, at each of them.

    Raises:
        UserError: A file without a decoder, no images, or a picture that is not made of such a model.
    """
    must_be_positive({"count": count})
    if (mask, show) == ("grid", "ratios"):
        raise UserError(
            "reconstruct.reconstruct",
            "a grid mask hides 75%, no other ratio",
            "give --mask random or block, or leave it out",
        )
    model = load_model(run, mask_ratio=mask_ratio, mask=mask)
    encoder = model.encoder
    pixels, _ = load_images(images, encoder.image_size, encoder.channels, limit=count)
    must_be_png(out)
    with torch.no_grad():
        loss = _DRAW[show](model, pixels, seed, out)
    log.info(f"{out}: {len(pixels)} images, loss {_told(loss)} on the hidden patches")
    return {"picture": str(out), "images": len(pixels), "loss": loss}


def draw_prediction(model: Objective, pixels: UInt8[Tensor, "b c h w"], seed: int, out: Path) -> float:
    """Write the picture; return the loss."""
    normalize, keys = _normalize(model), _keys(seed, len(pixels))
    loss = float(model(normalize(pixels), keys).loss)
    save_png(out, picture(model, normalize, pixels, keys))
    return loss


def draw_ratios(model: Objective, pixels: UInt8[Tensor, "b c h w"], seed: int, out: Path) -> dict[str, float]:
    """Write the predictions over the ratios; return the loss at each, by its name."""
    found = over_ratios(_mae(model), _normalize(model), pixels, _keys(seed, len(pixels)))
    save_figure(out, ratios_figure(pixels, found))
    return {f"{at.ratio:.0%}": at.loss for at in found}


def draw_losses(model: Objective, pixels: UInt8[Tensor, "b c h w"], seed: int, out: Path) -> float:
    """Write the loss of each patch; return their mean."""
    mae, normalized = _mae(model), _normalize(model)(pixels)
    draws = (_keys(seed, len(pixels), draw) for draw in range(DRAWS))
    losses = loss_map(mae, normalized, (mae.hide(seeds) for seeds in draws))
    save_figure(out, losses_figure(pixels, losses.unflatten(1, mae.encoder.grid)))
    return float(losses.nanmean())


_DRAW: dict[Show, Callable[[Objective, Tensor, int, Path], Any]] = {
    "prediction": draw_prediction,
    "ratios": draw_ratios,
    "losses": draw_losses,
}


def _keys(seed: int, count: int, draw: int = 0) -> Int64[Tensor, " b"]:
    """What is hidden in each image, at each draw."""
    parts = (seed, np.arange(count), draw) if draw else (seed, np.arange(count))
    return torch.from_numpy(combine(*parts).view(np.int64))


def _normalize(model: Objective) -> Normalize:
    encoder: Any = model.encoder
    return Normalize(encoder.pretrained_cfg.mean, encoder.pretrained_cfg.std)


def _mae(model: Objective) -> MAE:
    if not isinstance(model, MAE):
        kind = type(model).__name__
        raise UserError(
            "reconstruct.mae",
            f"the model was trained with {kind}, which has no ratios or losses to show",
            "leave --show out",
        )
    return model


def _told(loss: float | dict[str, float]) -> str:
    if not isinstance(loss, dict):
        return f"{loss:.4f}"
    (low, least), (high, most) = next(iter(loss.items())), list(loss.items())[-1]
    return f"{least:.4f} with {low} hidden to {most:.4f} with {high}"
