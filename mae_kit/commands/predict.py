"""Predict the classes of images."""

import logging
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mae_kit.data.loading.images import read_images
from mae_kit.data.remote.filesystem import Place
from mae_kit.data.transforms.augment import Normalize
from mae_kit.training.ranges import POSITIVE, check_ranges
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import load_classifier

log = logging.getLogger(__name__)

BATCH = 128


def predict(run: Path, images: list[Place], top: int = 3, limit: int | None = None) -> dict[str, Any]:
    """Print the most likely classes of images, with probabilities.

    Probabilities are softmax outputs; for multi-label classifiers, independent sigmoid outputs, thresholded at 0.5.

    Args:
        run: A fine-tuning run, or its classifier.safetensors.
        images: Images, folders of images, folders of shards, tars, or URLs of shards; of any size.
        top: Number of classes to print for each image.
        limit: Maximum number of images to read from each source; by default all.

    Returns:
        For each image its name and the top classes with probabilities, 0..1.

    Raises:
        UserError: The run holds no classifier, or nothing decodes; top or limit is not above 0.
    """
    check_ranges({"top": top, "limit": limit}, top=POSITIVE, limit=POSITIVE)
    classifier = load_classifier(run)
    config: ModelConfig = classifier.config
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, normalize = classifier.to(device), Normalize(config.mean, config.std).to(device)
    results = []
    for source in images:
        found = islice(read_images(source, config.size, config.channels, *config.crop), limit)
        while some := list(islice(found, BATCH)):
            with torch.no_grad():
                logits = model(normalize(torch.stack([pixels for pixels, _ in some]).to(device))).cpu()
            for (_, name), classes in zip(some, _likely(logits, config, top), strict=True):
                log.info(f"{name}: " + ", ".join(f"{label} {value:.1%}" for label, value in classes.items()))
                results.append({"image": name, "classes": classes})
    return {"predictions": results}


def _likely(logits: Float[Tensor, "b k"], config: ModelConfig, top: int) -> list[dict[str, float]]:
    """The top classes of each image, with probabilities."""
    likely = logits.sigmoid() if config.multi_label else logits.softmax(dim=1)
    values, places = (each.tolist() for each in likely.topk(min(top, len(config.classes)), dim=1))
    names = ([config.classes[place] for place in row] for row in places)
    return [dict(zip(*row, strict=True)) for row in zip(names, values, strict=True)]
