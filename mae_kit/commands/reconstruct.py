"""`mae-kit reconstruct`: what a pretrained model predicts for hidden patches of your images."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from mae_kit.data.loading.images import load_images
from mae_kit.data.remote.filesystem import Place
from mae_kit.data.scale import Scale
from mae_kit.data.transforms.augment import Normalize
from mae_kit.errors import UserError
from mae_kit.objectives import Objective
from mae_kit.objectives.masking import MaskKind
from mae_kit.parallel.device import frozen_device
from mae_kit.plots.figures import check_png
from mae_kit.plots.reconstructions import draw_reconstructions, save_png
from mae_kit.randomness import combine
from mae_kit.training.ranges import POSITIVE, check_ranges
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import load_model

log = logging.getLogger(__name__)


def reconstruct(
    run: Path,
    images: Place,
    out: Path = Path("grid.png"),
    mask_ratio: float | None = None,
    mask: MaskKind | None = None,
    seed: int = 0,
    count: int = 8,
    rgb: str | None = None,
) -> dict[str, Any]:
    """Mask images and plot what the model predicts: input | visible | prediction | visible and predicted combined.

    If the model predicts something other than pixels, as BEiT does, the last column shows a perfect prediction.

    Args:
        run: A pretraining run, or its model.safetensors.
        images: An image, a folder of images or shards, a tar file, or a URL of shards; any size.
        out: The PNG file to write.
        mask_ratio: Fraction of the patches to hide; by default as in training.
        mask: Kind of mask; by default as in training.
        seed: Seed of the mask.
        count: Maximum number of images, spread evenly over those given.
        rgb: Channels to show as red, green and blue, counted from 1, or names of bands: "4,3,2"; by default the first
            three.

    Returns:
        `plot`, the path; `images`, their number; `loss`, of the whole objective.

    Raises:
        UserError: No model, no images, or the model has no such mask or channels.
    """
    check_ranges({"count": count}, count=POSITIVE)
    check_png(out)
    device = frozen_device()
    model = load_model(run, mask_ratio=mask_ratio, mask=mask).to(device)
    record: ModelConfig = model.encoder.pretrained_cfg  # type: ignore[assignment]
    shown = _channels(rgb, model.encoder.channels, record.scale) if rgb else []
    pixels, _ = load_images(images, model.encoder.image_size, model.encoder.channels, count, record.scale)
    normalize, pixels, seeds = normalization(model), pixels.to(device), image_seeds(seed, len(pixels)).to(device)
    with torch.no_grad():
        loss = float(model(normalize(pixels), seeds).loss)
        save_png(out, draw_reconstructions(model, normalize, pixels, seeds, shown))
    log.info(f"{out}: {len(pixels)} images, loss {loss:.4f}")
    return {"plot": str(out), "images": len(pixels), "loss": loss}


def _channels(rgb: str, count: int, scale: Scale | None) -> list[int]:
    """Where three channels are, by their numbers from 1 or their names."""
    places = {str(number + 1): number for number in range(count)}
    places |= {name: place for place, name in enumerate(scale.names)} if scale else {}
    found = [places[name.strip()] for name in rgb.split(",") if name.strip() in places]
    if len(found) != 3 or rgb.count(",") != 2:
        what = f"--rgb {rgb} are not three channels of {count}"
        raise UserError("rgb", what, "give three numbers, counted from 1, or names of bands")
    return found


def image_seeds(seed: int, count: int, draw: int = 0) -> Int64[Tensor, " b"]:
    """Make a seed for each image, at each draw."""
    parts = (seed, np.arange(count), draw) if draw else (seed, np.arange(count))
    return torch.from_numpy(combine(*parts).view(np.int64))


def normalization(model: Objective) -> Normalize:
    """Normalize images on the device of a saved model, as in its pretraining."""
    encoder: Any = model.encoder
    config, device = encoder.pretrained_cfg, next(model.parameters()).device
    return Normalize(config.mean, config.std).to(device)
