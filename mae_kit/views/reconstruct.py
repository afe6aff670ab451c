"""What a pretrained model makes of your images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from mae_kit.console import say
from mae_kit.data.augment import Normalise
from mae_kit.data.images import load_images
from mae_kit.data.remote import Place
from mae_kit.errors import UserError
from mae_kit.masks import MaskKind
from mae_kit.model_file import load_model
from mae_kit.objectives import Objective
from mae_kit.patches import patchify
from mae_kit.randomness import combine
from mae_kit.training.settings import must_be_positive
from mae_kit.views.reconstructions import reconstruction_grid, save_png


def picture(
    objective: Objective, normalise: Normalise, images: UInt8[Tensor, "b c h w"], keys: Int64[Tensor, " b"]
) -> np.ndarray:
    """Input, hidden, prediction and pasted, a row an image: uint8 [H W 3]."""
    seen = normalise(images)
    outcome = objective(seen, keys)
    predicted = normalise.inverse(objective.pixels(outcome.prediction, seen)).clamp(0, 1)
    size = objective.encoder.patch_size
    return reconstruction_grid(images.float() / 255, outcome.hidden, patchify(predicted, size), size)


def reconstruct(
    run: Path,
    images: Place,
    out: Path = Path("grid.png"),
    mask_ratio: float | None = None,
    mask: MaskKind | None = None,
    seed: int = 0,
    count: int = 8,
) -> dict[str, Any]:
    """Hide most of some images and draw what the model predicts: input | hidden | prediction | pasted together.

    Args:
        run: A pretraining run, or its model.safetensors.
        images: An image, a folder of images or of shards, a tar, or a URL of shards; any size.
        out: The picture to write, PNG.
        mask_ratio: Share of the patches to hide; by default as in training.
        mask: random, block or grid; by default as in training.
        seed: Chooses what is hidden.
        count: How many images at most.

    Returns:
        The picture's path, and the mean loss on the hidden patches.

    Raises:
        UserError: A file without a decoder, or no images.
    """
    must_be_positive({"count": count})
    model = load_model(run, mask_ratio=mask_ratio, mask=mask)
    encoder = model.objective.encoder
    pixels, _ = load_images(images, encoder.image_size, encoder.channels, limit=count)
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out} is not a PNG", f"give --out {out.with_suffix('.png')}")
    keys = torch.from_numpy(combine(seed, np.arange(len(pixels))).view(np.int64))
    normalise = Normalise(model.mean, model.std)
    with torch.no_grad():
        loss = float(model.objective(normalise(pixels), keys).loss)
        save_png(out, picture(model.objective, normalise, pixels, keys))
    say(f"{out}: {len(pixels)} images, loss {loss:.4f} on the hidden patches")
    return {"picture": str(out), "images": len(pixels), "loss": loss}
