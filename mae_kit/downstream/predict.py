"""Classes and probabilities of your images."""

from pathlib import Path
from typing import Any

import torch

from mae_kit.console import say
from mae_kit.data.augment import Normalise
from mae_kit.data.images import load_images
from mae_kit.data.remote import Place
from mae_kit.downstream.classifier_file import load_classifier

BATCH = 128


def predict(run: Path, images: list[Place], top: int = 3, limit: int = 10_000) -> dict[str, Any]:
    """Print the most likely classes of images, with probabilities.

    They add up to 1, but where images may have any number of classes each has one of its own: from .5 on it is there.

    Args:
        run: A fine-tuning run, or its classifier.safetensors.
        images: Images, folders of images or of shards, tars, or URLs of shards; any size.
        top: How many classes to print for each image.
        limit: How many images at most from each source.

    Returns:
        For each image its name and the top classes with probabilities, 0..1.

    Raises:
        UserError: The run holds no classifier, or nothing decodes.
    """
    model, config = load_classifier(run)
    normalise = Normalise(config.mean, config.std)
    results = []
    for source in images:
        size = (config.image_size[0], config.image_size[1])
        pixels, names = load_images(source, size, len(config.mean), limit, config.crop_share)
        with torch.no_grad():
            logits = torch.cat([model(normalise(part)) for part in pixels.split(BATCH)])
        likely = logits.sigmoid() if config.multi_label else logits.softmax(dim=1)
        best = likely.topk(min(top, len(config.classes)), dim=1)
        for name, values, places in zip(names, best.values.tolist(), best.indices.tolist(), strict=True):
            classes = {config.classes[place]: value for place, value in zip(places, values, strict=True)}
            say(f"{name}: " + ", ".join(f"{label} {value:.1%}" for label, value in classes.items()))
            results.append({"image": name, "classes": classes})
    return {"predictions": results}
