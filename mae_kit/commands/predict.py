"""Predict the classes of images."""

import csv
import io
import logging
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mae_kit.data.loading.images import read_images, whole_images
from mae_kit.data.remote.filesystem import Place
from mae_kit.data.transforms.augment import Normalize
from mae_kit.errors import UserError
from mae_kit.files.durable import replace_text
from mae_kit.inert import cell
from mae_kit.tasks.metrics import THRESHOLD
from mae_kit.tasks.overlays import as_rgb, beside, to_palette
from mae_kit.tasks.segmentation import predict_mask
from mae_kit.tasks.segmenter import holds_segmenter, load_segmenter
from mae_kit.training.ranges import POSITIVE, check_ranges
from mae_kit.weights.config import ModelConfig
from mae_kit.weights.native import load_classifier

log = logging.getLogger(__name__)

BATCH = 128
PREDICTED = "predicted"


def predict(
    run: Path, images: list[Place], top: int = 3, limit: int | None = None, out: Path | None = None
) -> dict[str, Any]:
    """Print the most likely classes of images, with probabilities; with a segmenter, write masks and overlays.

    Probabilities are softmax outputs; for multi-label classifiers, independent sigmoid outputs, where an asterisk marks
    the predicted classes (0.5 or more). A mask is a palette PNG of the size of the image that holds the class of every
    pixel.

    Args:
        run: A fine-tuning run, or its classifier.safetensors or segmenter.safetensors.
        images: Images, folders of images, folders of shards, tars, or URLs of shards; of any size.
        top: Number of classes to print for each image.
        limit: Maximum number of images to read from each source; by default all.
        out: Also write a CSV file: one line per image, with its name, the top classes and their probabilities. With a
            segmenter, the folder for NAME.png and NAME.overlay.png; by default predicted/ in the run.

    Returns:
        Under `predictions` for each image its name and the top classes with probabilities, 0..1; `out`, the CSV file.
        With a segmenter for each image the two files and the fraction of the pixels of each class; `out`, the folder.

    Raises:
        UserError: The run holds no classifier, or nothing decodes; top or limit is not above 0; `out` is not a .csv.
    """
    check_ranges({"top": top, "limit": limit}, top=POSITIVE, limit=POSITIVE)
    if holds_segmenter(run):
        return segment(run, images, limit, out or (run if run.is_dir() else run.parent) / PREDICTED)
    if out and out.suffix != ".csv":
        raise UserError("out", f"--out {out} is not a .csv file", "give, for example, predictions.csv")
    classifier = load_classifier(run)
    config: ModelConfig = classifier.config
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, normalize = classifier.to(device), Normalize(config.mean, config.std).to(device)
    results = []
    for source in images:
        found = islice(read_images(source, config.size, config.channels, *config.crop, config.scale), limit)
        while some := list(islice(found, BATCH)):
            with torch.no_grad():
                logits = model(normalize(torch.stack([pixels for pixels, _ in some]).to(device))).cpu()
            for (_, name), classes in zip(some, _likely(logits, config, top), strict=True):
                log.info(f"{name}: {_line(classes, config.multi_label)}")
                results.append({"image": name, "classes": classes})
    return {"predictions": results} | ({"out": _write(results, out)} if out else {})


def _line(classes: dict[str, float], multi_label: bool) -> str:
    marked = {label: "*" * (multi_label and value >= THRESHOLD) for label, value in classes.items()}
    return ", ".join(f"{label} {value:.1%}{marked[label]}" for label, value in classes.items())


def _write(results: list[dict[str, Any]], out: Path) -> str:
    """Write image, class_1, probability_1, class_2, ... for each image."""
    buffer = io.StringIO()
    lines = csv.writer(buffer, lineterminator="\n")
    ranks = range(1, 1 + len(results[0]["classes"]))
    lines.writerow(["image", *(f"{name}_{rank}" for rank in ranks for name in ("class", "probability"))])
    for one in results:
        found = [each for label, value in one["classes"].items() for each in (cell(label), f"{value:.6g}")]
        lines.writerow([cell(one["image"]), *found])
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(out, buffer.getvalue())
    log.info(f"{len(results):,} predictions: {out}")
    return str(out)


def _likely(logits: Float[Tensor, "b k"], config: ModelConfig, top: int) -> list[dict[str, float]]:
    """The top classes of each image, with probabilities."""
    likely = logits.sigmoid() if config.multi_label else logits.softmax(dim=1)
    values, places = (each.tolist() for each in likely.topk(min(top, len(config.classes)), dim=1))
    names = ([config.classes[place] for place in row] for row in places)
    return [dict(zip(*row, strict=True)) for row in zip(names, values, strict=True)]


def segment(run: Path, images: list[Place], limit: int | None, out: Path) -> dict[str, Any]:
    """Write the masks and overlays of a segmenter; arguments and result as of `predict`."""
    segmenter, record = load_segmenter(run)
    segmenter.to("cuda" if torch.cuda.is_available() else "cpu")
    names, results = record.model.classes, list[dict[str, Any]]()
    files = _Files(out)
    for source in images:
        for pixels, name in islice(whole_images(source, record.model.channels), limit):
            mask = predict_mask(segmenter, pixels[None], record).numpy()
            file, picture = files.pair_of(name)
            to_palette(mask, len(names)).save(file)
            beside(as_rgb(pixels), [mask], names).save(picture)
            counts = np.bincount(mask.ravel(), minlength=len(names)) / mask.size
            found = {names[number]: float(counts[number]) for number in np.argsort(-counts) if counts[number]}
            log.info(f"{name}: " + ", ".join(f"{label} {value:.1%}" for label, value in list(found.items())[:3]))
            results.append({"image": name, "mask": str(file), "overlay": str(picture), "classes": found})
    return {"out": str(out), "predictions": results}


class _Files:
    """Names for the predictions of images in one folder; images of one name get a number behind it."""

    def __init__(self, folder: Path):
        self.folder, self.taken = folder, Counter[str]()
        folder.mkdir(parents=True, exist_ok=True)

    def pair_of(self, image: str) -> tuple[Path, Path]:
        """Files for the mask and the overlay."""
        stem = Path(image).stem
        self.taken[stem] += 1
        own = stem if self.taken[stem] == 1 else f"{stem}-{self.taken[stem]}"
        return self.folder / f"{own}.png", self.folder / f"{own}.overlay.png"
